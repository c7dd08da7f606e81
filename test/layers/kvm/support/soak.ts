/**
 * Two VMs of four vCPUs each at once under load, paused and resumed all the time: no request is lost, repeated, or
 * answered while its VM is paused.
 */
import { Effect } from "effect"
import * as CountingGuest from "./CountingGuest.ts"

export interface SoakOptions {
  readonly vms: number
  readonly vcpus: number
  /** Time that a VM runs from one pause to the next. */
  readonly betweenMs: number
  /** Whether another pause is to come, after so many of one VM with all of its vCPUs under load. */
  readonly goesOn: (pauses: number) => boolean
}

/** What came of one VM. */
export interface Soaked {
  readonly pauses: number
  /** Requests by vCPU. */
  readonly requests: ReadonlyArray<number>
  readonly end: string
  readonly problems: ReadonlyArray<string>
}

const soakOne = ({ betweenMs, goesOn, vcpus }: SoakOptions) =>
  Effect.scoped(Effect.gen(function*() {
    const { device, vm } = yield* CountingGuest.make(vcpus)
    let running = yield* vm.start
    let pauses = 0
    while (goesOn(pauses)) {
      yield* Effect.sleep(betweenMs)
      const paused = yield* running.pauseWithin("1 minute")
      device.isPaused = true
      if (device.isUnderLoad) pauses++
      // Whoever still ran would be seen in one of these turns.
      for (let turns = 0; turns < 3; turns++) yield* Effect.yieldNow
      device.isPaused = false
      running = yield* paused.resume
    }
    device.isEnding = true
    const end = yield* running.ended
    yield* running.pause
    const problems = yield* CountingGuest.disagreements(vm, device)
    const soaked: Soaked = {
      pauses,
      requests: device.accounts.map(({ count, reads }) => count + reads),
      end: end._tag,
      problems: [...problems, ...(yield* vm.io.recentEvents).map(({ _tag }) => _tag)]
    }
    return soaked
  }))

/** VMs at once, until each has been paused often enough. */
export const soak = (options: SoakOptions) =>
  Effect.all(Array.from({ length: options.vms }, () => soakOne(options)), { concurrency: "unbounded" })
