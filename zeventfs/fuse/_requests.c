/*
 * Stands between pyfuse3 and libfuse and sees each FUSE request before pyfuse3 does.
 *
 * pyfuse3 has no hook for FUSE_INTERRUPT, and keeps from its handlers the flags that a file has at
 * the time of a read, the handle of a getattr and the kernel's name for a poller. This extension is
 * loaded with RTLD_GLOBAL before pyfuse3 is, and defines three functions of libfuse's under their
 * own names: pyfuse3's undefined symbols resolve to these, which look at the request
 * (linux/fuse.h) and go on to the real ones.
 *
 * Everything runs under the GIL: pyfuse3 calls both functions from its _session_loop without
 * releasing it (it must hold it, its handlers make coroutines from within process_buf), and from
 * one thread, trio's. So plain statics will do, and Python may be called.
 *
 * A request's facts stay valid from its process_buf to the next one. pyfuse3 runs a handler's
 * coroutine up to its first real wait in the very step that called process_buf, so a handler's
 * first statements find its own request here, and nothing after an await does.
 */
#define PY_SSIZE_T_CLEAN
#define FUSE_USE_VERSION 31
#include <Python.h>

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <stdbool.h>
#include <string.h>

static struct { /* libfuse's own, as pyfuse3 would have found them: see bind() */
    int (*receive_buf)(struct fuse_session *, struct fuse_buf *);
    void (*process_buf)(struct fuse_session *, const struct fuse_buf *);
    int (*fd)(struct fuse_session *);
    void (*exit)(struct fuse_session *);
    int (*reply_buf)(fuse_req_t, const char *, size_t);
} libfuse;

enum { CACHE_LINE = 64, PAGE = 4096 };

static struct { /* the request being started */
    struct fuse_in_header head;
    union {
        struct fuse_read_in read;
        struct fuse_getattr_in getattr;
        struct fuse_poll_in poll;
        struct fuse_interrupt_in interrupt;
    } body; /* zeros where the request is shorter */
} now;

static PyObject *interrupted, *ended;  /* watch()'s callbacks */
static bool opened, started, over;     /* how far the watched session is */
static void *shared;                   /* libfuse's receive buffer, the only one */
static struct fuse_buf *borrower;      /* the worker's fuse_buf that holds it just now */
static Py_buffer ahead;                /* what to fetch after the next reply; obj NULL: nothing */

/* Call back with *argument* (stolen; NULL: none); a callback's error is not the mount's. */
static void tell(PyObject *callback, PyObject *argument)
{
    PyObject *result = NULL;

    if (callback == NULL)
        return;
    if (argument != NULL)
        result = PyObject_CallOneArg(callback, argument);
    else if (!PyErr_Occurred()) /* else no memory for the argument */
        result = PyObject_CallNoArgs(callback);
    if (result == NULL)
        PyErr_WriteUnraisable(callback);
    Py_XDECREF(result);
    Py_XDECREF(argument);
}

/*
 * Receive a request into the one buffer that all workers share.
 *
 * libfuse allocates 1 MiB where buf->mem is NULL, and pyfuse3 has a fuse_buf for each worker, that
 * is, for each blocked read. pyfuse3 processes a request right after receiving it, and its
 * handlers copy what they keep (names, written bytes) before they return: so libfuse's first
 * allocation is kept here and lent to one worker at a time, until its process_buf is over. A large
 * write comes as a pipe instead of memory (FUSE_BUF_IS_FD: libfuse splices by default, since
 * pyfuse3 has a write_buf, if it may make a pipe of over 1 MiB, which takes CAP_SYS_RESOURCE);
 * libfuse leaves mem as it is then, and reads the pipe in process_buf.
 */
int fuse_session_receive_buf(struct fuse_session *se, struct fuse_buf *buf)
{
    int res;

    if (!opened) {
        /* Between epoll's "readable" and the read, a request goes away if its process is killed:
           a read that blocks would stop the daemon until the next request. */
        int flags = fcntl(libfuse.fd(se), F_GETFL);
        if (flags < 0 || fcntl(libfuse.fd(se), F_SETFL, flags | O_NONBLOCK) < 0)
            return -errno;
        opened = true;
    }
    buf->mem = shared;
    buf->flags = 0; /* libfuse sets it for a pipe only, and never resets it */
    res = libfuse.receive_buf(se, buf);
    shared = buf->mem; /* the first time it is libfuse's malloc */
    if (res > 0) {
        borrower = buf;
        return res;
    }
    buf->mem = NULL; /* there'll be no process_buf; pyfuse3 frees mem when the worker ends */
    switch (res) {
    case -EAGAIN: /* the request went away before we had it */
    case -ENOENT: /* the same, where libfuse splices and so doesn't try again itself */
    case -EINTR:
        return -EINTR; /* the one error after which pyfuse3 goes on */
    case -ECONNABORTED: /* the end came while a request was being read; libfuse knows only ENODEV */
        libfuse.exit(se);
        res = 0;
    }
    if (!over) { /* once, though each waiting worker may come by */
        over = true;
        tell(ended, NULL);
    }
    return res;
}

/* Note a request's facts, tell of an interrupt, and let libfuse (and so pyfuse3) start it. */
void fuse_session_process_buf(struct fuse_session *se, const struct fuse_buf *buf)
{
    size_t size = buf->flags & FUSE_BUF_IS_FD ? 0 : buf->size; /* a pipe's bytes are libfuse's */

    memset(&now, 0, sizeof now);
    if (size >= sizeof now.head) {
        memcpy(&now.head, buf->mem, sizeof now.head);
        size -= sizeof now.head;
        memcpy(&now.body, (const char *)buf->mem + sizeof now.head,
               size < sizeof now.body ? size : sizeof now.body);
    }
    if (now.head.opcode == FUSE_INIT)
        started = true;
    else if (now.head.opcode == FUSE_INTERRUPT)
        tell(interrupted, PyLong_FromUnsignedLongLong(now.body.interrupt.unique));
    libfuse.process_buf(se, buf);
    if (borrower == buf) { /* buf is const here, but not what receive_buf was given */
        borrower->mem = NULL;
        borrower = NULL;
    }
}

/*
 * Reply to a read, then have the CPU fetch the bytes that the reader asks for next.
 *
 * A backlog lies in memory that no cache has held for long, and a cold copy into the kernel takes
 * longer than everything else about a large read. Here it overlaps with the reader's waking up. A
 * prefetch is dropped where its page is not in the TLB, hence one real load a page before.
 */
int fuse_reply_buf(fuse_req_t req, const char *buf, size_t size)
{
    int res = libfuse.reply_buf(req, buf, size);

    if (ahead.obj != NULL) {
        const char *start = ahead.buf, *end = start + ahead.len;
        for (const volatile char *page = start; page < end; page += PAGE)
            (void)*page;
        for (const char *line = start; line < end; line += CACHE_LINE)
            __builtin_prefetch(line);
        PyBuffer_Release(&ahead);
    }
    return res;
}

static PyObject *read_ahead(PyObject *Py_UNUSED(module), PyObject *following)
{
    PyBuffer_Release(&ahead); /* where no reply has come by; it does nothing if there is none */
    if (PyObject_GetBuffer(following, &ahead, PyBUF_SIMPLE) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* The facts; each costs a few Python integers, for it is asked at every read. */

static bool is_now(uint32_t opcode)
{
    if (now.head.opcode != opcode)
        PyErr_Format(PyExc_RuntimeError, "the request being started has opcode %u, not %u",
                     now.head.opcode, opcode);
    return now.head.opcode == opcode;
}

static PyObject *current(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none))
{
    return Py_BuildValue("IKI", now.head.opcode, (unsigned long long)now.head.unique, now.head.pid);
}

/* A tuple of *items* (stolen), any of which may be NULL with an error set. */
static PyObject *triple(PyObject *first, PyObject *second, PyObject *third)
{
    PyObject *tuple = first && second && third ? PyTuple_New(3) : NULL;

    if (tuple == NULL) {
        Py_XDECREF(first);
        Py_XDECREF(second);
        Py_XDECREF(third);
        return NULL;
    }
    PyTuple_SET_ITEM(tuple, 0, first);
    PyTuple_SET_ITEM(tuple, 1, second);
    PyTuple_SET_ITEM(tuple, 2, third);
    return tuple;
}

static PyObject *read_request(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none))
{
    if (!is_now(FUSE_READ))
        return NULL;
    return triple(PyLong_FromUnsignedLongLong(now.head.unique), PyLong_FromLong(now.head.pid),
                  PyLong_FromLong(now.body.read.flags));
}

static PyObject *getattr_handle(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none))
{
    if (!is_now(FUSE_GETATTR))
        return NULL;
    if (!(now.body.getattr.getattr_flags & FUSE_GETATTR_FH))
        Py_RETURN_NONE;
    return PyLong_FromUnsignedLongLong(now.body.getattr.fh);
}

static PyObject *poll_request(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none))
{
    if (!is_now(FUSE_POLL))
        return NULL;
    return triple(PyLong_FromUnsignedLongLong(now.head.unique),
                  PyLong_FromUnsignedLongLong(now.body.poll.kh),
                  PyBool_FromLong(now.body.poll.flags & FUSE_POLL_SCHEDULE_NOTIFY));
}

/* The session's frame. */

static PyObject *watch(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *on_interrupt, *on_end;

    if (!PyArg_ParseTuple(args, "OO:watch", &on_interrupt, &on_end))
        return NULL;
    if (shared != NULL && borrower == NULL) { /* the next session's may be of another size */
        free(shared);
        shared = NULL;
    }
    opened = started = over = false;
    memset(&now, 0, sizeof now);
    Py_XSETREF(interrupted, Py_NewRef(on_interrupt));
    Py_XSETREF(ended, Py_NewRef(on_end));
    Py_RETURN_NONE;
}

static PyObject *has_started(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none))
{
    return PyBool_FromLong(started);
}

/*
 * Find the real functions where the linker would have: in what pyfuse3's own file was linked to
 * (dlsym on its handle looks at it and its libraries, not at us; RTLD_NEXT would look in neither).
 */
static PyObject *bind(PyObject *Py_UNUSED(module), PyObject *path)
{
    const char *file = PyUnicode_AsUTF8(path);
    void *handle = file != NULL ? dlopen(file, RTLD_LAZY | RTLD_NOLOAD) : NULL;
    void *global = dlopen(NULL, RTLD_LAZY); /* RTLD_DEFAULT looks here too */

    if (file == NULL)
        return NULL;
    if (handle == NULL)
        return PyErr_Format(PyExc_ImportError, "%s is not loaded", file);
    libfuse.receive_buf = dlsym(handle, "fuse_session_receive_buf");
    libfuse.process_buf = dlsym(handle, "fuse_session_process_buf");
    libfuse.fd = dlsym(handle, "fuse_session_fd");
    libfuse.exit = dlsym(handle, "fuse_session_exit");
    libfuse.reply_buf = dlsym(handle, "fuse_reply_buf");
    dlclose(handle); /* it stays loaded: Python unloads no extension */
    if (!libfuse.receive_buf || !libfuse.process_buf || !libfuse.fd || !libfuse.exit ||
        !libfuse.reply_buf)
        return PyErr_Format(PyExc_ImportError, "%s has no libfuse3 that we know", file);
    if (dlsym(global, "fuse_session_receive_buf") != (void *)fuse_session_receive_buf ||
        dlsym(global, "fuse_session_process_buf") != (void *)fuse_session_process_buf ||
        libfuse.receive_buf == fuse_session_receive_buf ||
        libfuse.process_buf == fuse_session_process_buf)
        return PyErr_Format(PyExc_ImportError, "%s calls libfuse directly, past zeventfs", file);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"bind", bind, METH_O, "Find the libfuse of pyfuse3's shared object *path*; ImportError."},
    {"watch", watch, METH_VARARGS, "Call interrupted(unique) and, once, ended() from now on."},
    {"started", has_started, METH_NOARGS, "Whether the session's FUSE_INIT came by here."},
    {"current", current, METH_NOARGS, "The request being started: (opcode, unique, pid)."},
    {"read_request", read_request, METH_NOARGS, "The read being started: (unique, pid, flags)."},
    {"getattr_handle", getattr_handle, METH_NOARGS, "The getattr's file handle, or None."},
    {"read_ahead", read_ahead, METH_O, "Have the CPU fetch *buffer* after the next reply."},
    {"poll_request", poll_request, METH_NOARGS, "The poll's (unique, kh, schedule)."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_requests",
    .m_doc = "Sees each FUSE request before pyfuse3 does (see zeventfs.fuse.requests).",
    .m_size = -1, /* one process has one pyfuse3 session */
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit__requests(void)
{
    return PyModule_Create(&module);
}
