/**
 * The C library as layers need it that call a kernel. The only file that knows koffi, which is loaded when it is first
 * used.
 */
const O_RDWR = 0x2
const O_CLOEXEC = 0x8_0000
const EFD_CLOEXEC_NONBLOCK = 0x8_0800
const PROT_READ_WRITE = 0x3
const MAP_SHARED = 0x1
const MADV_NOHUGEPAGE = 15
const CLOCK_MONOTONIC = 1
const SIGEV_THREAD_ID = 4
const SYS_GETPID = 39
const SYS_GETTID = 186
const SYS_TGKILL = 234

// The default is to ignore it, debuggers pass it on, and no library uses it for itself.
const SIGURG = 23

const SIGACTION_BYTES = 152
const SIGEVENT_BYTES = 64

/** The version that the layers were tested with. */
export const FFI = "koffi@3.3.4"

/** Memory that the kernel shares with this process. */
export interface Mapping {
  readonly bytes: Uint8Array<ArrayBuffer>
  /** Gives the address range back; nothing may use `bytes` any more. */
  readonly unmap: () => void
}

/** A timer of one thread: while it is set, the thread's system calls end with EINTR each time it fires. */
export interface ThreadTimer {
  /** Fires every `nanoseconds`, below 1e9, from now on; 0 ends it. */
  readonly set: (nanoseconds: number) => void
  readonly close: () => void
}

/** Looks out for data that a file has to read. */
export interface ReadWatch {
  /** Keeps the process alive until {@link stop}, as whatever waits does. */
  readonly start: () => void
  readonly stop: () => void
  /** Before the file is closed. The others do nothing after it. */
  readonly close: () => void
}

/** Numbers are results of the C library: 0 or positive, or a negative errno. */
export interface Libc {
  /** Opens a file to read and write. */
  readonly open: (path: string) => number
  readonly close: (fd: number) => void
  readonly ioctl: (fd: number, request: number, word: number) => number
  readonly ioctlAt: (fd: number, request: number, structure: Uint8Array) => number
  readonly mapShared: (fd: number, bytes: number) => Mapping | number
  readonly addressOf: (memory: Uint8Array) => number
  /** Memory of which the kernel shall not join pages. */
  readonly forbidHugePages: (address: number, bytes: number) => void
  readonly threadId: () => number
  /**
   * Lets {@link interruptThread} and timers end a system call, and nothing else, until the result is called. It is for
   * the whole process; who calls first installs the signal handler, who is done last takes it away.
   */
  readonly makeInterruptible: () => () => void
  /** Ends the system call that a thread of this process is in. */
  readonly interruptThread: (threadId: number) => void
  /** A timer for the thread that calls this. */
  readonly threadTimer: () => ThreadTimer | number
  readonly eventFd: () => number
  readonly readEventFd: (fd: number) => bigint
  readonly writeEventFd: (fd: number) => number
  /** A watch, not started, that calls back in a turn of the event loop for as long as there is something to read. */
  readonly watchReadable: (fd: number, onReadable: () => void) => ReadWatch
}

export const loadLibc = async (): Promise<Libc> => {
  const { default: koffi } = await import("koffi")
  const library = koffi.load(null)
  const open: (path: string, flags: number) => number = library.func("int open(const char*, int)")
  const close: (fd: number) => number = library.func("int close(int)")
  const ioctl: (fd: number, request: number, word: number) => number = library.func(
    "int ioctl(int, unsigned long, uintptr_t)"
  )
  const ioctlAt: (fd: number, request: number, at: Uint8Array) => number = library.func(
    "int ioctl(int, unsigned long, void*)"
  )
  const mmap: (at: number, bytes: number, prot: number, flags: number, fd: number, offset: number) => bigint | number =
    library.func("uintptr_t mmap(uintptr_t, size_t, int, int, int, long)")
  const munmap: (address: bigint | number, bytes: number) => number = library.func("int munmap(uintptr_t, size_t)")
  const madvise: (address: number, bytes: number, advice: number) => number = library.func(
    "int madvise(uintptr_t, size_t, int)"
  )
  const syscall: (number: number, a: number, b: number, c: number) => number = library.func(
    "long syscall(long, long, long, long)"
  )
  const eventfd: (initial: number, flags: number) => number = library.func("int eventfd(unsigned int, int)")
  const read: (fd: number, into: Uint8Array, bytes: number) => number = library.func("long read(int, void*, size_t)")
  const write: (fd: number, from: Uint8Array, bytes: number) => number = library.func("long write(int, void*, size_t)")
  const sigaction: (signal: number, action: Uint8Array | null, old: Uint8Array | null) => number = library.func(
    "int sigaction(int, void*, void*)"
  )
  const dlsym: (handle: number, name: string) => number = library.func("uintptr_t dlsym(uintptr_t, const char*)")
  const timerCreate: (clock: number, event: Uint8Array, timer: Uint8Array) => number = library.func(
    "int timer_create(int, void*, void*)"
  )
  const timerSettime: (timer: bigint, flags: number, value: Uint8Array, old: null) => number = library.func(
    "int timer_settime(uintptr_t, int, void*, void*)"
  )
  const timerDelete: (timer: bigint) => number = library.func("int timer_delete(uintptr_t)")

  const negated = (result: number): number => result < 0 ? -koffi.errno() : result
  const processId = syscall(SYS_GETPID, 0, 0, 0)
  const threadId = () => syscall(SYS_GETTID, 0, 0, 0)

  const installHandler = (): () => void => {
    const before = new Uint8Array(SIGACTION_BYTES)
    sigaction(SIGURG, null, before)
    // Whatever handles it already will do: only a signal that is ignored ends no call.
    if (new BigUint64Array(before.buffer)[0]! > 1n) return () => undefined
    const action = new Uint8Array(SIGACTION_BYTES)
    // A function that does nothing.
    new BigUint64Array(action.buffer)[0] = BigInt(dlsym(0, "abs"))
    sigaction(SIGURG, action, null)
    return () => {
      sigaction(SIGURG, before, null)
    }
  }

  return {
    open: (path) => negated(open(path, O_RDWR | O_CLOEXEC)),
    close: (fd) => {
      close(fd)
    },
    ioctl: (fd, request, word) => negated(ioctl(fd, request, word)),
    ioctlAt: (fd, request, structure) => negated(ioctlAt(fd, request, structure)),
    mapShared: (fd, bytes) => {
      const address = BigInt(mmap(0, bytes, PROT_READ_WRITE, MAP_SHARED, fd, 0))
      if (BigInt.asIntN(64, address) === -1n) return -koffi.errno()
      return {
        bytes: new Uint8Array(koffi.view(address, bytes)),
        unmap: () => {
          munmap(address, bytes)
        }
      }
    },
    addressOf: (memory) => Number(koffi.address(memory)),
    forbidHugePages: (address, bytes) => {
      // A kernel that does not know the advice joins no pages.
      madvise(address, bytes, MADV_NOHUGEPAGE)
    },
    threadId,
    makeInterruptible: () => holdHandler(installHandler),
    interruptThread: (thread) => {
      syscall(SYS_TGKILL, processId, thread, SIGURG)
    },
    threadTimer: () => {
      const event = new Uint8Array(SIGEVENT_BYTES)
      new Int32Array(event.buffer).set([SIGURG, SIGEV_THREAD_ID, threadId()], 2)
      const made = new Uint8Array(8)
      const result = negated(timerCreate(CLOCK_MONOTONIC, event, made))
      if (result < 0) return result
      const timer = new BigUint64Array(made.buffer)[0]!
      // struct itimerspec: seconds and nanoseconds of the interval, then of the first time.
      const spec = new BigInt64Array(4)
      const bytes = new Uint8Array(spec.buffer)
      return {
        set: (nanoseconds) => {
          spec[1] = spec[3] = BigInt(nanoseconds)
          timerSettime(timer, 0, bytes, null)
        },
        close: () => {
          timerDelete(timer)
        }
      }
    },
    eventFd: () => negated(eventfd(0, EFD_CLOEXEC_NONBLOCK)),
    readEventFd: (fd) => {
      const count = new BigUint64Array(1)
      return read(fd, new Uint8Array(count.buffer), 8) === 8 ? count[0]! : 0n
    },
    writeEventFd: (fd) => {
      const result = negated(write(fd, new Uint8Array(new BigUint64Array([1n]).buffer), 8))
      return result < 0 ? result : 0
    },
    watchReadable: (fd, onReadable) => {
      const events = { readable: true }
      // Once it is closed koffi takes any other call of it for one with a handle, and crashes.
      let handle: ReturnType<typeof koffi.node.poll> | undefined = koffi.node.poll(fd, events, onReadable)
      handle.stop()
      return {
        start: () => handle?.start(events, onReadable),
        stop: () => handle?.stop(),
        close: () => {
          handle?.close()
          handle = undefined
        }
      }
    }
  }
}

let holders = 0
let removeHandler: () => void = () => undefined

const holdHandler = (install: () => () => void): () => void => {
  if (holders++ === 0) removeHandler = install()
  let isHeld = true
  return () => {
    if (!isHeld) return
    isHeld = false
    if (--holders === 0) removeHandler()
  }
}
