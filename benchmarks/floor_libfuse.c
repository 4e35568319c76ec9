/* A floor: C libfuse, low level, one thread, answering every read of /constant from one buffer.
 *
 *   floor_libfuse MOUNTPOINT SIZE
 */
#define FUSE_USE_VERSION 314
#include <errno.h>
#include <fuse_lowlevel.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { CONSTANT = 2 };

static char *constant;
static size_t size;

static struct stat attributes(fuse_ino_t inode)
{
    struct stat answer = {.st_ino = inode, .st_nlink = 1};
    answer.st_mode = inode == FUSE_ROOT_ID ? S_IFDIR | 0555 : S_IFREG | 0444;
    return answer;
}

static void get_attributes(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *file)
{
    (void)file;
    struct stat answer = attributes(inode);
    fuse_reply_attr(request, &answer, 0);
}

static void look_up(fuse_req_t request, fuse_ino_t parent, const char *name)
{
    struct fuse_entry_param entry = {.ino = CONSTANT};
    if (parent != FUSE_ROOT_ID || strcmp(name, "constant")) {
        fuse_reply_err(request, ENOENT);
        return;
    }
    entry.attr = attributes(CONSTANT);
    fuse_reply_entry(request, &entry);
}

static void open_file(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *file)
{
    (void)inode;
    file->direct_io = 1;
    fuse_reply_open(request, file);
}

static void read_file(fuse_req_t request, fuse_ino_t inode, size_t asked, off_t offset,
                      struct fuse_file_info *file)
{
    (void)inode, (void)offset, (void)file;
    fuse_reply_buf(request, constant, asked < size ? asked : size);
}

static const struct fuse_lowlevel_ops operations = {
    .lookup = look_up,
    .getattr = get_attributes,
    .open = open_file,
    .read = read_file,
};

int main(int argc, char **argv)
{
    char *options[] = {argv[0], "-ofsname=floor_libfuse", NULL};
    struct fuse_args arguments = FUSE_ARGS_INIT(2, options);
    struct fuse_session *session;
    if (argc != 3)
        return 2;
    size = strtoul(argv[2], NULL, 10);
    constant = malloc(size);
    session = fuse_session_new(&arguments, &operations, sizeof operations, NULL);
    if (!constant || !session || fuse_set_signal_handlers(session))
        return 1;
    memset(constant, 'x', size);
    if (fuse_session_mount(session, argv[1]))
        return 1;
    fuse_session_loop(session);
    fuse_session_unmount(session);
    fuse_remove_signal_handlers(session);
    fuse_session_destroy(session);
    return 0;
}
