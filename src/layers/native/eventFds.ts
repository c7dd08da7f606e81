/**
 * Eventfds between a kernel and this process: counters that one side adds to, and the other reads.
 *
 * The event loop itself watches an eventfd that is waited for, by its epoll. A thread that waits in its stead was
 * measured too: it hears of a ring twice as late (12 us against 6 us), and nothing can end it while it waits.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { Errno } from "../../domain/Errno.ts"
import type { CapabilityError, Doorbell, IrqFd } from "../../services/Hypervisor.ts"
import type { Libc, ReadWatch } from "./Libc.ts"
import { refused } from "./refused.ts"

type Resume = (next: Effect.Effect<bigint, Cause.Done>) => void

const DONE: Effect.Effect<never, Cause.Done> = Cause.done()

/** In a turn of its own: not in the stack of whoever destroys the VM. */
const later = <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<A, E> => Effect.andThen(Effect.yieldNow, effect)

export class EventFd {
  readonly fd: number
  private readonly libc: Libc
  /** Oldest first: each count goes to one of them. */
  private readonly waiters: Array<Resume> = []
  private watch: ReadWatch | undefined
  private isOver = false
  private isClosed = false

  constructor(libc: Libc, fd: number) {
    this.libc = libc
    this.fd = fd
  }

  /** The count since it was last read. The descriptor's number may be another file's once it is closed. */
  read(): bigint {
    return this.isClosed ? 0n : this.libc.readEventFd(this.fd)
  }

  /** Adds one: 0, or a negative errno. */
  add(): number {
    return this.isOver ? -Errno.EBADF : this.libc.writeEventFd(this.fd)
  }

  /** Waits until there is a count, which is never 0, or until it is over. */
  readonly count: Effect.Effect<bigint, Cause.Done> = Effect.callback<bigint, Cause.Done>((resume) => {
    const count = this.read()
    if (count > 0n) return resume(Effect.succeed(count))
    if (this.isOver) return resume(DONE)
    if (this.waiters.push(resume) === 1) this.watching().start()
    return Effect.sync(() => {
      const place = this.waiters.indexOf(resume)
      if (place >= 0) this.waiters.splice(place, 1)
      this.rest()
    })
  })

  /** Nobody on the other side any more: whoever waits is told, the first of what came last. */
  end(): void {
    if (this.isOver) return
    this.isOver = true
    const waiters = this.waiters.splice(0)
    this.rest()
    if (waiters.length === 0) return
    const last = this.read()
    if (last > 0n) waiters.shift()!(later(Effect.succeed(last)))
    for (const resume of waiters) resume(later(DONE))
  }

  close(): void {
    this.end()
    if (this.isClosed) return
    this.isClosed = true
    this.watch?.close()
    this.libc.close(this.fd)
  }

  private watching(): ReadWatch {
    this.watch ??= this.libc.watchReadable(this.fd, () => this.tell())
    return this.watch
  }

  private tell(): void {
    const count = this.read()
    if (count === 0n) return
    const resume = this.waiters.shift()
    this.rest()
    resume?.(Effect.succeed(count))
  }

  private rest(): void {
    if (this.waiters.length === 0) this.watch?.stop()
  }
}

/** An eventfd until the scope closes. */
export const eventFd = (
  capability: string,
  vmId: number,
  libc: Libc
): Effect.Effect<EventFd, CapabilityError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.suspend(() => {
      const fd = libc.eventFd()
      return fd < 0
        ? refused(capability, vmId, fd, "this process has no file descriptor left; raise its limit (`ulimit -n`)")
        : Effect.succeed(new EventFd(libc, fd))
    }),
    (made) => Effect.sync(() => made.close())
  )

export const doorbellOf = (eventFile: EventFd): Doorbell => ({
  fd: eventFile.fd,
  rings: Effect.sync(() => eventFile.read()),
  awaitRing: eventFile.count
})

/** `wake` is called after each interrupt that was raised here. */
export const irqFdOf = (eventFile: EventFd, wake: () => void = () => undefined): IrqFd => ({
  fd: eventFile.fd,
  raise: () => {
    const result = eventFile.add()
    if (result === 0) wake()
    return result
  }
})
