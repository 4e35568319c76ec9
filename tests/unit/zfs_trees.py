"""Trees as the kernel shows them where OpenZFS's module is loaded, made of files."""

from pathlib import Path

BOOT_ID = "ed56cad9-0bc7-42ae-82ba-e108907618b4"
CRTIME = 27496663082
FM = f"""\
6 1 0x01 5 1360 {CRTIME} 63177192511
name                            type data
erpt-dropped                    4    3
erpt-set-failed                 4    2
fmri-set-failed                 4    70
payload-set-failed              4    500
erpt-duplicates                 4    11
"""


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def loaded(root: Path, version: str = "2.1.11-1", crtime: int = CRTIME) -> Path:
    """Show the module as loaded under *root*; /dev/zfs isn't made."""
    write(root, "sys/module/zfs/version", f"{version}\n")
    write(root, "sys/module/zfs/parameters/zfs_zevent_len_max", "512\n")
    write(root, "proc/spl/kstat/zfs/fm", FM.replace(str(CRTIME), str(crtime)))
    write(root, "proc/sys/kernel/random/boot_id", f"{BOOT_ID}\n")
    return root
