/**
 * The C library as the layer needs it. The only file that knows koffi, which is loaded when it is first used.
 */
import type { HsmIoctlName } from "../../domain/abi/HsmIoctl.ts"
import { HsmIoctl } from "../../domain/abi/HsmIoctl.ts"

const O_RDWR = 0x2
const O_CLOEXEC = 0x8_0000
const EFD_CLOEXEC_NONBLOCK = 0x8_0800
const MADV_NOHUGEPAGE = 15
const SYS_GETTID = 186
const SYS_TGKILL = 234

// The default is to ignore it, debuggers pass it on, and no library uses it for itself.
const SIGURG = 23

const SIGACTION_BYTES = 152

/** An open file of the driver; each holds one VM. Results are 0 or positive, or a negative errno. */
export interface HsmFile {
  readonly fd: number
  readonly request: (name: HsmIoctlName, argument?: number | Uint8Array) => number
  readonly close: () => void
}

export interface Libc {
  /** A file of the driver, or a negative errno. */
  readonly openHsm: (path: string) => HsmFile | number
  readonly attach: (fd: number) => number
  readonly addressOf: (memory: Uint8Array) => number
  /** Memory of which the kernel shall not join pages. */
  readonly forbidHugePages: (address: number, bytes: number) => void
  readonly threadId: () => number
  /** Lets {@link interruptThread} end a system call, and nothing else. */
  readonly makeInterruptible: () => void
  readonly interruptThread: (processId: number, threadId: number) => void
  readonly eventFd: () => number
  readonly readEventFd: (fd: number) => bigint
  readonly writeEventFd: (fd: number) => number
  readonly close: (fd: number) => void
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

  const negated = (result: number): number => result < 0 ? -koffi.errno() : result
  return {
    openHsm: (path) => {
      const fd = negated(open(path, O_RDWR | O_CLOEXEC))
      if (fd < 0) return fd
      return {
        fd,
        request: (name, argument = 0) =>
          negated(
            typeof argument === "number"
              ? ioctl(fd, HsmIoctl[name], argument)
              : ioctlAt(fd, HsmIoctl[name], argument)
          ),
        close: () => {
          close(fd)
        }
      }
    },
    attach: (fd) => negated(ioctl(fd, HsmIoctl.AttachIoreqClient, 0)),
    addressOf: (memory) => Number(koffi.address(memory)),
    forbidHugePages: (address, bytes) => {
      // A kernel that does not know the advice joins no pages.
      madvise(address, bytes, MADV_NOHUGEPAGE)
    },
    threadId: () => syscall(SYS_GETTID, 0, 0, 0),
    makeInterruptible: () => {
      const action = new Uint8Array(SIGACTION_BYTES)
      sigaction(SIGURG, null, action)
      const words = new BigUint64Array(action.buffer)
      // Whatever handles it already will do. Otherwise a function that does nothing: a signal that is ignored ends no call.
      if (words[0]! > 1n) return
      action.fill(0)
      words[0] = BigInt(dlsym(0, "abs"))
      sigaction(SIGURG, action, null)
    },
    interruptThread: (processId, threadId) => {
      syscall(SYS_TGKILL, processId, threadId, SIGURG)
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
    close: (fd) => {
      close(fd)
    }
  }
}
