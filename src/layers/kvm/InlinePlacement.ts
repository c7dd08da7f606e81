/**
 * Runs a VM's vCPUs in turns on the thread that serves their requests. An access costs no switch of threads; a timer
 * takes the thread back from a guest that makes none, so that the event loop lives.
 *
 * The kernel keeps the thread while a vCPU halts. So one that only waits for interrupts is entered but for moments, and
 * the thread sleeps in between where events can wake it.
 */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type { EndReason } from "../../domain/EndReason.ts"
import { Doorbell } from "../model/Doorbell.ts"
import { SlotWriter } from "../model/SlotWriter.ts"
import type { ThreadTimer } from "../native/Libc.ts"
import { activityOf, isOver } from "./activity.ts"
import { endOf } from "./ends.ts"
import { type PlacedVcpu, PlacedVcpus } from "./PlacedVcpus.ts"
import type { Placement, PlacementOptions } from "./Placement.ts"
import { VcpuRunner } from "./VcpuRunner.ts"

/**
 * How long a vCPU keeps the thread: so many exits, about a millisecond; or so long, if it makes few. A timer that fires
 * costs as much as some exits, so it is for guests that make none.
 */
const EXITS_PER_SLICE = 128
const SLICE_NS = 2_000_000
/** How long one keeps it that is known to halt: enough to see an interrupt that is there. */
const GLANCE_NS = 50_000
/** How long the thread sleeps when every vCPU halts: an interrupt that the kernel itself makes waits no longer. */
const NAP_MS = 1

/**
 * - `More`: a vCPU can go on.
 * - `Idle`: every vCPU waits, some for an interrupt that the kernel may make.
 * - `Parked`: nothing goes on before an answer comes.
 */
type Turn = "More" | "Idle" | "Parked" | "Over"

export interface InlineHost {
  /** The timer of the thread, which all VMs share: one runs at a time. */
  readonly timer: ThreadTimer
  readonly launch: (loop: Effect.Effect<void>) => Fiber.Fiber<void>
}

export class InlinePlacement extends PlacedVcpus<PlacedVcpu> implements Placement {
  protected readonly cores: ReadonlyArray<PlacedVcpu>
  private readonly host: InlineHost
  private readonly onEnd: (reason: EndReason) => void
  private readonly doorbell = new Doorbell()
  private fiber: Fiber.Fiber<void> | undefined

  constructor({ onEnd, raise, vcpus, vmId }: PlacementOptions, host: InlineHost) {
    super()
    this.host = host
    this.onEnd = onEnd
    this.cores = vcpus.map((file) => ({
      runner: new VcpuRunner(file, new SlotWriter(vmId, file.id, raise, false)),
      activity: "Absent"
    }))
  }

  run(): void {
    if (this.fiber !== undefined) return
    // The first turn comes after the caller's: no hypercall runs a vCPU.
    this.fiber = this.host.launch(Effect.andThen(Effect.yieldNow, this.loop))
  }

  readonly pause: Effect.Effect<void> = Effect.suspend(() => {
    const fiber = this.fiber
    this.fiber = undefined
    if (fiber === undefined) return Effect.void
    return Effect.andThen(
      Fiber.interrupt(fiber),
      Effect.sync(() => {
        for (const { runner } of this.cores) runner.settle()
      })
    )
  })

  notify(vcpu: number): void {
    const { requests } = this.cores[vcpu]!.runner
    if (!requests.isWaiting) return
    requests.isNotified = true
    this.doorbell.ring()
  }

  wake(): void {
    this.doorbell.ring()
  }

  whileStopped<A>(change: () => A): A {
    // Whoever calls this has the thread, so no vCPU does.
    return change()
  }

  readonly close: Effect.Effect<void> = Effect.suspend(() => this.pause)

  private readonly loop: Effect.Effect<void> = Effect.suspend(() => {
    switch (this.turn()) {
      case "More":
        return Effect.andThen(Effect.yieldNow, this.loop)
      case "Idle":
        return Effect.andThen(Effect.raceFirst(this.doorbell.wait, nap), this.loop)
      case "Parked":
        return Effect.andThen(this.doorbell.wait, this.loop)
      case "Over":
        return Effect.void
    }
  })

  /** Each vCPU that can run gets the thread once. */
  private turn(): Turn {
    let canGoOn = false
    let isIdle = false
    for (const core of this.cores) {
      if (core.activity === "Absent" || core.activity === "Stopped") continue
      switch (this.runCore(core)) {
        case "Over":
          return "Over"
        case "More":
          canGoOn = true
          break
        case "Idle":
          isIdle = true
          break
        case "Parked":
          break
      }
    }
    if (this.cores.every(({ activity }) => isOver(activity))) {
      this.onEnd({ _tag: "Halted" })
      return "Over"
    }
    return canGoOn ? "More" : isIdle ? "Idle" : "Parked"
  }

  private runCore(core: PlacedVcpu): Turn {
    const { runner } = core
    if (core.activity === "Unborn" && !this.isBorn(core)) return "Idle"
    this.host.timer.set(core.activity === "Running" ? SLICE_NS : GLANCE_NS)
    const stop = runner.run(EXITS_PER_SLICE)
    this.host.timer.set(0)
    switch (stop) {
      case "Waiting":
        core.activity = "Running"
        return "Parked"
      case "Exhausted":
        core.activity = "Running"
        return "More"
      case "Interrupted":
        core.activity = activityOf(runner.file)
        return core.activity === "Running" ? "More" : "Idle"
      case "Halted":
        core.activity = "Stopped"
        return "Parked"
      case "Failed":
      case "Exited":
        this.onEnd(endOf(runner, stop))
        return "Over"
    }
  }

  private isBorn(core: PlacedVcpu): boolean {
    core.activity = activityOf(core.runner.file)
    return core.activity !== "Unborn"
  }
}

/** Time of the host, whatever clock a test has. */
const nap = Effect.callback<void>((resume) => {
  const timer = setTimeout(() => resume(Effect.void), NAP_MS)
  return Effect.sync(() => clearTimeout(timer))
})
