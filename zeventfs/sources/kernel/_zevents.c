/*
 * One open of OpenZFS's /dev/zfs: its events, read with NEXT, SEEK and CLEAR, and no libzfs.
 *
 * fcntl.ioctl keeps the GIL where the argument has more than 1,024 bytes, and a struct zfs_cmd has
 * 13,744: in a burst each event would wait for the interpreter. So take() reads as many events as
 * there are, or fit, with the GIL released once for all of them.
 *
 * Two threads use an open: the reader is in take(), and most of the time asleep in a blocking NEXT;
 * the guard is in guard() and sees to it that the reader doesn't sleep over an event. NEXT looks at
 * the queue, lets go of its lock, and goes to sleep: an event that is posted in between is noticed
 * with the next one only. What guard() does about it, and why nothing is late, is written above it.
 *
 * The offsets in struct command are those of OpenZFS 0.7 to 2.4 on 64-bit Linux
 * (include/sys/zfs_ioctl.h), where only the end has grown. The kernel copies its own sizeof in and
 * out, also on an error; what is behind what it knows stays zero.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS_NEXT = 0x5a81, EVENTS_CLEAR = 0x5a82, EVENTS_SEEK = 0x5a83 };
enum { BLOCK = 0, NONBLOCK = 1 };
enum { NAP_NS = 1000000, REPEAT_S = 1 };

/* What ends a sleep. Its default is to be ignored, so that one that comes late harms nobody. */
enum { WAKING = SIGURG };

struct command { /* zfs_cmd_t, as far as it is used here */
    char before_dst[4112];
    uint64_t dst;         /* NEXT: the buffer's address */
    uint64_t dst_size;    /* NEXT: its size; the kernel puts the event's there */
    int32_t dst_filled;
    char before_guid[8460];
    uint64_t guid;        /* NEXT: BLOCK or NONBLOCK; SEEK: where to */
    char before_cookie[16];
    uint64_t cookie;      /* NEXT: dropped; CLEAR: how many events there were */
    char before_cursor[1040];
    int32_t cursor;       /* zc_cleanup_fd: the descriptor whose cursor is meant */
    char rest[2716];
};
_Static_assert(offsetof(struct command, dst) == 4112, "zc_nvlist_dst");
_Static_assert(offsetof(struct command, dst_size) == 4120, "zc_nvlist_dst_size");
_Static_assert(offsetof(struct command, dst_filled) == 4128, "zc_nvlist_dst_filled");
_Static_assert(offsetof(struct command, guid) == 12592, "zc_guid");
_Static_assert(offsetof(struct command, cookie) == 12616, "zc_cookie");
_Static_assert(offsetof(struct command, cursor) == 13664, "zc_cleanup_fd");
_Static_assert(sizeof(struct command) == 16384, "larger than any release's");

struct head { /* stands before each event that take() gives */
    uint64_t size, dropped;
};

typedef struct {
    PyObject_HEAD
    int fd;                /* -1: closed */
    struct command *reads, *looks; /* the reader's and the guard's */
    pthread_mutex_t lock;  /* for all below */
    pthread_cond_t changed;
    pid_t reader;
    unsigned long sleeps;  /* how often the reader went into a blocking NEXT */
    bool asleep;           /* whether it is in one */
    bool ending;
} Zevents;

static void nothing(int Py_UNUSED(number))
{
}

static void fill(struct command *command, int cursor, uint64_t guid, void *dst, size_t size)
{
    command->dst = (uintptr_t)dst;
    command->dst_size = size;
    command->dst_filled = 0;
    command->guid = guid;
    command->cookie = 0;
    command->cursor = cursor;
}

/* Ask the kernel; 0 or an errno. */
static int ask(Zevents *self, unsigned long request, struct command *command)
{
    return ioctl(self->fd, request, command) < 0 ? errno : 0;
}

/* The reader is about to block; false: it mustn't any more. */
static bool lie_down(Zevents *self)
{
    bool may;

    pthread_mutex_lock(&self->lock);
    may = !self->ending;
    if (may) {
        self->reader = (pid_t)syscall(SYS_gettid);
        self->sleeps++;
        self->asleep = true;
        pthread_cond_signal(&self->changed);
    }
    pthread_mutex_unlock(&self->lock);
    return may;
}

static void get_up(Zevents *self)
{
    pthread_mutex_lock(&self->lock);
    self->asleep = false;
    pthread_mutex_unlock(&self->lock);
}

/* With the lock held, so that the reader can't have gone on to anything else. */
static void wake(Zevents *self)
{
    syscall(SYS_tgkill, getpid(), self->reader, WAKING);
}

static void nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = NAP_NS}, NULL);
}

/* Take one event, with its head, if *room* has place for it; 0 or an errno. */
static int take_one(Zevents *self, char *to, size_t room, bool block, struct head *head)
{
    int error;

    fill(self->reads, self->fd, block ? BLOCK : NONBLOCK, to + sizeof *head, room - sizeof *head);
    if (block && !lie_down(self))
        return EINTR;
    error = ask(self, EVENTS_NEXT, self->reads);
    if (block)
        get_up(self);
    *head = (struct head){self->reads->dst_size, self->reads->cookie};
    if (error == 0)
        memcpy(to, head, sizeof *head);
    return error;
}

static PyObject *take(PyObject *object, PyObject *args)
{
    Zevents *self = (Zevents *)object;
    Py_buffer buffer;
    int block, error = 0;
    size_t used = 0, count = 0, size;
    struct head head = {0};

    if (!PyArg_ParseTuple(args, "w*p:take", &buffer, &block))
        return NULL;
    size = (size_t)buffer.len;
    Py_BEGIN_ALLOW_THREADS
    while (error == 0 && size - used >= sizeof head) {
        error = take_one(self, (char *)buffer.buf + used, size - used, block && !count, &head);
        if (error == 0) {
            used += sizeof head + head.size;
            count++;
        }
    }
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&buffer);
    return Py_BuildValue("nniK", (Py_ssize_t)used, (Py_ssize_t)count, error,
                         error == ENOMEM ? (unsigned long long)(sizeof head + head.size) : 0ULL);
}

/* Whether there is an event after the cursor: with no room for it, NEXT takes none. */
static bool overslept(Zevents *self)
{
    fill(self->looks, self->fd, NONBLOCK, NULL, 0);
    return ask(self, EVENTS_NEXT, self->looks) == ENOMEM;
}

/* Whether the kernel says that the reader sleeps (proc(5), stat: S), or can't say. */
static bool sleeps_for_certain(pid_t reader)
{
    char path[64], text[128], *name_end;
    ssize_t length;
    int stat;

    snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)reader);
    stat = open(path, O_RDONLY | O_CLOEXEC);
    if (stat < 0)
        return true;
    length = read(stat, text, sizeof text - 1);
    close(stat);
    text[length > 0 ? length : 0] = '\0';
    name_end = strrchr(text, ')'); /* a name is at most 15 bytes, and may hold any */
    return name_end == NULL || name_end[1] != ' ' || name_end[2] == 'S';
}

/*
 * See to it, until end(), that the reader doesn't sleep while there is an event to take.
 *
 * A post puts its event into the queue and wakes who sleeps, both under the queue's lock; NEXT
 * becomes a sleeper (TASK_INTERRUPTIBLE, S) under the same lock, and waits for the lock in another
 * state (D). So once the reader has been seen in S within a blocking NEXT, whatever is posted from
 * then on wakes it. What was posted before has either been seen by it or is in the queue behind its
 * cursor, and a look at the queue that comes after the S finds it. Hence the order here: wait until
 * the reader is in a NEXT, see S, see that it is the same NEXT still, and look. If there is an
 * event, the reader is woken, and with its next NEXT all begins anew; it is woken without need
 * where a post just does so, and then takes the event all the same. If there is none, this sleep
 * has missed nothing. The look is on the reader's own cursor and moves it in no case.
 *
 * That holds for a NEXT that sleeps once. Within one call it sleeps again if it was woken and then
 * found nothing: another's CLEAR came between its waking and its look, or the waking had no cause.
 * An event posted in the gap of that second sleep would wait for its successor. Nobody is told of
 * such a sleep, so for this one case the look is repeated each second while the reader sleeps.
 */
static void guard_it(Zevents *self)
{
    unsigned long sound = 0; /* the sleep that has missed nothing; they count from 1 */

    pthread_mutex_lock(&self->lock);
    while (!self->ending) {
        unsigned long sleep = self->sleeps;
        pid_t reader = self->reader;
        bool certain;

        if (!self->asleep) {
            pthread_cond_wait(&self->changed, &self->lock);
            continue;
        }
        if (sleep == sound) {
            struct timespec until;
            clock_gettime(CLOCK_MONOTONIC, &until);
            until.tv_sec += REPEAT_S;
            if (pthread_cond_timedwait(&self->changed, &self->lock, &until) == ETIMEDOUT)
                sound = 0;
            continue;
        }
        pthread_mutex_unlock(&self->lock);
        nap(); /* where events come one by one, a look for each would cost more than they do */
        certain = sleeps_for_certain(reader);
        pthread_mutex_lock(&self->lock);
        if (!certain || !self->asleep || self->sleeps != sleep)
            continue;
        if (overslept(self))
            wake(self);
        else
            sound = sleep;
    }
    pthread_mutex_unlock(&self->lock);
}

static PyObject *guard(PyObject *object, PyObject *Py_UNUSED(none))
{
    Py_BEGIN_ALLOW_THREADS
    guard_it((Zevents *)object);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

/* A signal that comes just before the kernel goes to sleep doesn't end the sleep: hence more. */
static PyObject *end(PyObject *object, PyObject *Py_UNUSED(none))
{
    Zevents *self = (Zevents *)object;

    Py_BEGIN_ALLOW_THREADS
    pthread_mutex_lock(&self->lock);
    self->ending = true;
    pthread_cond_broadcast(&self->changed);
    while (self->asleep) {
        wake(self);
        pthread_mutex_unlock(&self->lock);
        nap();
        pthread_mutex_lock(&self->lock);
    }
    pthread_mutex_unlock(&self->lock);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

/* Ask with the reader's command; on an error an OSError is set. */
static bool ask_alone(Zevents *self, unsigned long request, uint64_t guid)
{
    int error;

    Py_BEGIN_ALLOW_THREADS
    fill(self->reads, self->fd, guid, NULL, 0);
    error = ask(self, request, self->reads);
    Py_END_ALLOW_THREADS
    errno = error;
    if (error)
        PyErr_SetFromErrno(PyExc_OSError);
    return error == 0;
}

static PyObject *seek(PyObject *object, PyObject *eid)
{
    unsigned long long to = PyLong_AsUnsignedLongLong(eid);

    if (PyErr_Occurred() || !ask_alone((Zevents *)object, EVENTS_SEEK, to))
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *clear(PyObject *object, PyObject *Py_UNUSED(none))
{
    Zevents *self = (Zevents *)object;

    if (!ask_alone(self, EVENTS_CLEAR, 0))
        return NULL;
    return PyLong_FromUnsignedLongLong(self->reads->cookie);
}

static PyObject *close_it(PyObject *object, PyObject *Py_UNUSED(none))
{
    Zevents *self = (Zevents *)object;
    int fd = self->fd;

    self->fd = -1;
    if (fd >= 0)
        close(fd);
    Py_RETURN_NONE;
}

static PyObject *make(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(keywords))
{
    struct sigaction waking = {.sa_handler = nothing}; /* without SA_RESTART */
    pthread_condattr_t monotonic;
    PyObject *path;
    Zevents *self;

    if (!PyArg_ParseTuple(args, "O&:Zevents", PyUnicode_FSConverter, &path))
        return NULL;
    self = (Zevents *)type->tp_alloc(type, 0);
    if (self == NULL) {
        Py_DECREF(path);
        return NULL;
    }
    pthread_mutex_init(&self->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&self->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    self->reads = PyMem_Calloc(2, sizeof *self->reads);
    self->looks = self->reads + 1;
    self->fd = self->reads == NULL ? -1 : open(PyBytes_AS_STRING(path), O_RDWR | O_CLOEXEC);
    if (self->reads == NULL)
        PyErr_NoMemory();
    else if (self->fd < 0)
        PyErr_SetFromErrnoWithFilename(PyExc_OSError, PyBytes_AS_STRING(path));
    else
        sigaction(WAKING, &waking, NULL);
    Py_DECREF(path);
    if (self->fd < 0)
        Py_CLEAR(self);
    return (PyObject *)self;
}

static void unmake(PyObject *object)
{
    Zevents *self = (Zevents *)object;

    if (self->fd >= 0)
        close(self->fd);
    PyMem_Free(self->reads);
    pthread_cond_destroy(&self->changed);
    pthread_mutex_destroy(&self->lock);
    Py_TYPE(object)->tp_free(object);
}

/* What the kernel is given for a NEXT, so that it can be compared with a recorded one. */
static PyObject *command(PyObject *Py_UNUSED(module), PyObject *args)
{
    unsigned long long guid, dst, size;
    int cursor;
    PyObject *bytes;

    if (!PyArg_ParseTuple(args, "iKKK:command", &cursor, &guid, &dst, &size))
        return NULL;
    bytes = PyBytes_FromStringAndSize(NULL, sizeof(struct command));
    if (bytes != NULL) {
        struct command *made = (struct command *)PyBytes_AS_STRING(bytes);
        memset(made, 0, sizeof *made);
        fill(made, cursor, guid, (void *)(uintptr_t)dst, (size_t)size);
    }
    return bytes;
}

/* What is read of the kernel's answer: (size of the event, dropped). */
static PyObject *answer(PyObject *Py_UNUSED(module), PyObject *bytes)
{
    struct command given = {0};
    Py_buffer buffer;

    if (PyObject_GetBuffer(bytes, &buffer, PyBUF_SIMPLE) < 0)
        return NULL;
    memcpy(&given, buffer.buf,
           (size_t)buffer.len < sizeof given ? (size_t)buffer.len : sizeof given);
    PyBuffer_Release(&buffer);
    return Py_BuildValue("KK", (unsigned long long)given.dst_size,
                         (unsigned long long)given.cookie);
}

static PyMethodDef zevents_methods[] = {
    {"take", take, METH_VARARGS,
     "Read what is there into *buffer*, blocking for the first if *block*:\n"
     "(bytes used, events, errno, bytes needed)."},
    {"guard", guard, METH_NOARGS, "See to it until end() that the reader misses no event."},
    {"end", end, METH_NOARGS, "End guard(), and take() with EINTR, now and from now on."},
    {"seek", seek, METH_O, "Stand on an EID, 0 (the start) or 2**64 - 1 (the end); OSError."},
    {"clear", clear, METH_NOARGS, "Empty the queue; how many events there were; OSError."},
    {"close", close_it, METH_NOARGS, "Close the descriptor; nobody may be in guard() or take()."},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject zevents_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "zeventfs.sources.kernel._zevents.Zevents",
    .tp_doc = "One open of the device at *path*; OSError.",
    .tp_basicsize = sizeof(Zevents),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = make,
    .tp_dealloc = unmake,
    .tp_methods = zevents_methods,
};

static PyMethodDef methods[] = {
    {"command", command, METH_VARARGS, "NEXT's struct zfs_cmd for (cursor, guid, dst, size)."},
    {"answer", answer, METH_O, "(size, dropped) of a struct zfs_cmd that the kernel returned."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_zevents",
    .m_doc = "OpenZFS's /dev/zfs, as far as its events go.",
    .m_size = -1,
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit__zevents(void)
{
    PyObject *made = PyModule_Create(&module);

    if (made != NULL && (PyModule_AddType(made, &zevents_type) < 0 ||
                         PyModule_AddIntConstant(made, "WAKING", WAKING) < 0))
        Py_CLEAR(made);
    return made;
}
