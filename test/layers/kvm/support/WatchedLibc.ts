/**
 * The C library under watch: calls of it fail as a test says, and what was opened, mapped or installed is kept account
 * of, so that a leak, a second close, or a use of what is closed is seen.
 */
import { Errno } from "../../../../src/domain/Errno.ts"
import { ioctlCName, KvmIoctl, type KvmIoctlName } from "../../../../src/layers/kvm/abi/KvmIoctl.ts"
import { IMMEDIATE_EXIT_OFFSET } from "../../../../src/layers/kvm/abi/KvmRun.ts"
import type { Libc } from "../../../../src/layers/native/Libc.ts"

const names = new Map<number, string>(
  (Object.keys(KvmIoctl) as Array<KvmIoctlName>).map((name) => [KvmIoctl[name], ioctlCName(name)])
)

const makesFile: ReadonlySet<number> = new Set([KvmIoctl.CREATE_VM, KvmIoctl.CREATE_VCPU])

export class LibcWatch {
  /** Calls that can fail, oldest first. */
  readonly calls: Array<string> = []
  /** What was not closed yet. */
  readonly held = new Map<string, number>()
  /** Uses of what was closed, or never there. */
  readonly problems: Array<string> = []
  /** The negative errno of this call, which is not made then; 0 makes it. Only KVM_RUN is always begun, as by KVM. */
  fail: (call: string, index: number) => number = () => 0
  private readonly files = new Map<number, string>()
  private readonly runs = new Map<number, Uint8Array>()

  watch(libc: Libc): Libc {
    return {
      ...libc,
      open: (path) => this.file("open", this.attempt("open", () => libc.open(path))),
      close: (fd) => {
        const kind = this.files.get(fd)
        if (kind === undefined) this.problems.push(`close of ${fd}, which is not open`)
        else this.drop(kind)
        this.files.delete(fd)
        libc.close(fd)
      },
      ioctl: (fd, request, word) => {
        const name = this.nameOf(fd, request)
        const make = () => libc.ioctl(fd, request, word)
        const result = this.attempt(name, make, (failure) => {
          if (request === KvmIoctl.RUN && failure === -Errno.EINTR) this.interrupted(fd, make)
        })
        return makesFile.has(request) ? this.file(name, result) : result
      },
      ioctlAt: (fd, request, structure) =>
        this.attempt(this.nameOf(fd, request), () => libc.ioctlAt(fd, request, structure)),
      mapShared: (fd, bytes) => {
        const mapping = this.attempt("mmap", () => libc.mapShared(fd, bytes))
        if (typeof mapping === "number") return mapping
        this.hold("mapping")
        this.runs.set(fd, mapping.bytes)
        let isMapped = true
        return {
          bytes: mapping.bytes,
          unmap: () => {
            if (!isMapped) return void this.problems.push("a mapping was unmapped twice")
            isMapped = false
            this.drop("mapping")
            mapping.unmap()
          }
        }
      },
      makeInterruptible: () => {
        const release = libc.makeInterruptible()
        this.hold("signal handler")
        return () => {
          this.drop("signal handler")
          release()
        }
      },
      interruptThread: (thread) => {
        this.calls.push("tgkill")
        libc.interruptThread(thread)
      },
      threadTimer: () => {
        const timer = this.attempt("timer_create", () => libc.threadTimer())
        if (typeof timer === "number") return timer
        this.hold("timer")
        return {
          set: timer.set,
          close: () => {
            this.drop("timer")
            timer.close()
          }
        }
      },
      eventFd: () => this.file("eventfd", this.attempt("eventfd", () => libc.eventFd())),
      writeEventFd: (fd) => this.attempt(this.nameOf(fd, "write"), () => libc.writeEventFd(fd)),
      readEventFd: (fd) => {
        this.nameOf(fd, "read")
        return libc.readEventFd(fd)
      },
      watchReadable: (fd, onReadable) => {
        this.nameOf(fd, "poll")
        const watch = libc.watchReadable(fd, onReadable)
        this.hold("watch")
        return {
          ...watch,
          close: () => {
            this.drop("watch")
            watch.close()
          }
        }
      }
    }
  }

  private attempt<A>(call: string, make: () => A, onFailure: (failure: number) => void = () => undefined): A | number {
    const index = this.calls.push(call) - 1
    const failure = this.fail(call, index)
    if (failure >= 0) return make()
    onFailure(failure)
    return failure
  }

  /** A signal that comes at once lets KVM_RUN finish the last instruction, and do no more. */
  private interrupted(fd: number, enter: () => unknown): void {
    const run = this.runs.get(fd)!
    const before = run[IMMEDIATE_EXIT_OFFSET]!
    run[IMMEDIATE_EXIT_OFFSET] = 1
    enter()
    run[IMMEDIATE_EXIT_OFFSET] = before
  }

  private file(kind: string, fd: number): number {
    if (fd < 0) return fd
    this.files.set(fd, kind)
    this.hold(kind)
    return fd
  }

  private hold(kind: string): void {
    this.held.set(kind, (this.held.get(kind) ?? 0) + 1)
  }

  private drop(kind: string): void {
    const left = (this.held.get(kind) ?? 0) - 1
    if (left < 0) this.problems.push(`a ${kind} was given back twice`)
    else if (left === 0) this.held.delete(kind)
    else this.held.set(kind, left)
  }

  private nameOf(fd: number, request: number | string): string {
    const name = typeof request === "string" ? request : names.get(request) ?? `ioctl ${request.toString(16)}`
    if (!this.files.has(fd)) this.problems.push(`${name} of ${fd}, which is not open`)
    return name
  }
}

let current = new LibcWatch()

/** A new account, for the layers that are built from now on. */
export const newWatch = (): LibcWatch => current = new LibcWatch()

/** For a mock of the module `Libc`. */
export const watched = (load: () => Promise<Libc>) => async (): Promise<Libc> => current.watch(await load())
