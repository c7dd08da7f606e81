/**
 * Runs each vCPU of a VM on a thread of its own, which only enters the guest: requests, registers and the page stay with
 * the dispatching thread, whose event loop no guest holds up.
 *
 * The kernel keeps a thread while its vCPU halts, and tells nobody. So a vCPU that has not been back for a while is
 * called back, to see whether it is one that nothing can wake; the longer nothing comes of it, the rarer.
 */
import * as Effect from "effect/Effect"
import type { EndReason } from "../../../domain/EndReason.ts"
import { SlotWriter } from "../../model/SlotWriter.ts"
import type { Libc } from "../../native/Libc.ts"
import { KvmIoctl } from "../abi/KvmIoctl.ts"
import { activityOf, isOver } from "../activity.ts"
import { endOf } from "../ends.ts"
import { DispatcherSide } from "../mailbox/DispatcherSide.ts"
import { listen } from "../mailbox/listen.ts"
import { ListenerSide } from "../mailbox/ListenerSide.ts"
import { Spin } from "../mailbox/Spin.ts"
import { standStill } from "../mailbox/standStill.ts"
import { makeWords } from "../mailbox/words.ts"
import { type PlacedVcpu, PlacedVcpus } from "../PlacedVcpus.ts"
import type { Placement, PlacementOptions } from "../Placement.ts"
import { VcpuRunner } from "../VcpuRunner.ts"
import type { Threads, VcpuThread } from "./Threads.ts"

const FIRST_LOOK_MS = 1
const RAREST_LOOK_MS = 128
/** Beyond this a thread does not come back: it died. */
const STANDSTILL_MS = 1000

export interface WorkerHost {
  readonly libc: Pick<Libc, "interruptThread">
  readonly threads: Threads
  /** The most looks for its next turn before a vCPU's thread sleeps, and for a vCPU before the dispatcher does. */
  readonly spins: { readonly vcpu: number; readonly dispatcher: number }
}

type ThreadState = "None" | "Starting" | "Ready" | "Lost"

interface Core extends PlacedVcpu {
  readonly side: DispatcherSide
  /** Why the VM ends when it is to go on: this vCPU came to its end while the VM was being stopped. */
  lateEnd: EndReason | undefined
  thread: ThreadState
  threadId: number
  /** Why the thread was lost. */
  problem: string
  /** It is entered only to finish an instruction. */
  isSettling: boolean
  /** A turn in which it may go on is coming. */
  isScheduled: boolean
  /** How long it has been away, and after how long to look what it does. */
  awayMs: number
  lookAfterMs: number
}

export class WorkerPlacement extends PlacedVcpus<Core> implements Placement {
  private readonly host: WorkerHost
  private readonly onEnd: (reason: EndReason) => void
  private readonly words: Int32Array<SharedArrayBuffer>
  protected readonly cores: ReadonlyArray<Core>
  private readonly sides: ReadonlyArray<DispatcherSide>
  private stopListening: (() => void) | undefined
  private isRunning = false
  private isClosed = false
  /** Every vCPU seems to be over, and each is called back to see whether it is. */
  private isConfirming = false
  private looking: NodeJS.Timeout | undefined
  private lookDelayMs = 0
  /** Calls under way, from which handlers may pause or reset the VM: its vCPUs stand still when they are over. */
  private underWay = 0
  /** What waits for a vCPU to come back, or a thread to go. */
  private readonly waiting = new Set<() => void>()

  constructor({ onEnd, raise, vcpus, vmId }: PlacementOptions, host: WorkerHost) {
    super()
    this.host = host
    this.onEnd = onEnd
    this.words = makeWords(vcpus.length)
    const wake = (word: number) => Atomics.notify(this.words, word)
    this.cores = vcpus.map((file): Core => {
      const core: Core = {
        runner: new VcpuRunner(file, new SlotWriter(vmId, file.id, raise, false)),
        side: new DispatcherSide(this.words, file.id, {
          arm: () => file.setImmediateExit(true),
          disarm: () => file.setImmediateExit(core.isSettling),
          send: () => host.libc.interruptThread(core.threadId)
        }, wake),
        activity: "Absent",
        lateEnd: undefined,
        thread: "None",
        threadId: 0,
        problem: "",
        isSettling: false,
        isScheduled: false,
        awayMs: 0,
        lookAfterMs: FIRST_LOOK_MS
      }
      return core
    })
    this.sides = this.cores.map(({ side }) => side)
  }

  run(): void {
    if (this.isRunning) return
    this.isRunning = true
    this.isConfirming = false
    this.stopListening ??= listen({
      words: this.words,
      side: new ListenerSide(this.words, this.sides, new Spin({ most: this.host.spins.dispatcher, tries: true })),
      onBack: (vcpu, result) => this.call(() => this.onBack(this.cores[vcpu]!, result)),
      defer: setImmediate
    })
    // No hypercall runs a vCPU, or ends a VM.
    queueMicrotask(() => this.endIfOverAlready())
    for (const core of this.cores) this.schedule(core)
  }

  readonly pause: Effect.Effect<void> = Effect.suspend(() => {
    this.stop()
    return Effect.andThen(
      this.whenAllAreBack,
      Effect.suspend(() => {
        for (const core of this.cores) this.settle(core)
        return this.whenAllAreBack
      })
    )
  })

  notify(vcpu: number): void {
    const core = this.cores[vcpu]!
    if (!core.runner.requests.isWaiting) return
    core.runner.requests.isNotified = true
    this.schedule(core)
  }

  wake(): void {
    // The kernel wakes the vCPU that an interrupt is for.
  }

  whileStopped<A>(change: () => A): A {
    // A thread that does not come died, and its end is about to be heard of. Who came is heard of as always.
    standStill(this.words, this.sides, STANDSTILL_MS)
    return change()
  }

  override discard(vcpu: number): void {
    super.discard(vcpu)
    this.cores[vcpu]!.lateEnd = undefined
  }

  override abandon(): void {
    super.abandon()
    for (const core of this.cores) core.lateEnd = undefined
  }

  readonly close: Effect.Effect<void> = Effect.suspend(() => {
    this.isClosed = true
    this.stop()
    return Effect.andThen(
      this.whenAllAreBack,
      Effect.suspend(() => {
        for (const { side, thread } of this.cores) if (thread === "Ready") side.leave()
        return Effect.andThen(
          this.when(() => this.cores.every(({ thread }) => thread === "None" || thread === "Lost")),
          Effect.sync(() => this.stopListening?.())
        )
      })
    )
  })

  private when(isSo: () => boolean): Effect.Effect<void> {
    return Effect.callback((resume) => {
      const look = () => {
        if (!isSo()) return
        this.waiting.delete(look)
        resume(Effect.void)
      }
      this.waiting.add(look)
      look()
      return Effect.sync(() => this.waiting.delete(look))
    })
  }

  private onChange(): void {
    for (const look of this.waiting) look()
  }

  private readonly whenAllAreBack = this.when(() => this.underWay === 0 && this.cores.every(({ side }) => !side.isOut))

  private call(f: () => void): void {
    this.underWay++
    f()
    this.underWay--
    this.onChange()
  }

  private stop(): void {
    this.isRunning = false
    clearTimeout(this.looking)
    this.looking = undefined
    for (const { side } of this.cores) side.recall()
  }

  private end(reason: EndReason): void {
    this.stop()
    this.onEnd(reason)
  }

  private schedule(core: Core): void {
    if (core.isScheduled) return
    core.isScheduled = true
    queueMicrotask(() => {
      core.isScheduled = false
      this.call(() => this.goOn(core))
    })
  }

  /** Lets the vCPU run, if it can. */
  private goOn(core: Core): void {
    const { activity, runner, side } = core
    if (!this.isRunning || side.isOut || activity === "Absent" || activity === "Stopped") return
    // Whoever answers in here needs no turn of its own for it.
    core.isScheduled = true
    const canEnter = runner.canEnter()
    core.isScheduled = false
    // A handler may have stopped the VM.
    if (!canEnter || !this.isRunning) return
    switch (core.thread) {
      case "Ready":
        return this.enter(core)
      case "None":
        void this.takeThread(core)
        return
      case "Lost":
        return this.end({ _tag: "Fault", message: core.problem })
      case "Starting":
    }
  }

  private enter(core: Core): void {
    core.awayMs = 0
    if (this.looking === undefined || core.lookAfterMs < this.lookDelayMs) this.lookAfter(core.lookAfterMs)
    core.side.run()
  }

  private async takeThread(core: Core): Promise<void> {
    core.thread = "Starting"
    let thread: VcpuThread
    try {
      thread = await this.host.threads.take()
    } catch (cause) {
      this.lose(core, `could not be started: ${String(cause)}`)
      return
    }
    if (this.isClosed) {
      core.thread = "None"
      thread.release()
      this.onChange()
      return
    }
    core.thread = "Ready"
    core.threadId = thread.id
    const { fd, id } = core.runner.file
    thread.run({ fd, run: KvmIoctl.RUN, vcpu: id, words: this.words, spins: this.host.spins.vcpu }, (problem) => {
      if (problem === undefined) {
        core.thread = "None"
        this.onChange()
      } else this.lose(core, problem)
    })
    this.call(() => this.goOn(core))
  }

  /** The thread is no more; what its vCPU did when it ended is not known. */
  private lose(core: Core, problem: string): void {
    core.thread = "Lost"
    core.problem = `the thread of vCPU ${core.runner.file.id} ended: ${problem}`
    core.side.lose()
    if (this.isRunning) this.end({ _tag: "Fault", message: core.problem })
    this.onChange()
  }

  private onBack(core: Core, result: number): void {
    if (core.isSettling) {
      core.isSettling = false
      core.runner.file.setImmediateExit(false)
      core.runner.entered(result)
    } else if (!core.side.isGone) this.take(core, result)
  }

  private take(core: Core, result: number): void {
    const { runner } = core
    const stop = runner.entered(result)
    switch (stop) {
      case undefined:
        core.activity = "Running"
        core.lookAfterMs = FIRST_LOOK_MS
        this.isConfirming = false
        return this.goOn(core)
      case "Halted":
        core.activity = "Stopped"
        return this.endIfAllAreOver()
      case "Failed":
      case "Exited":
        core.lateEnd = endOf(runner, stop)
        return this.endIfOverAlready()
      case "Interrupted":
      case "Waiting":
      case "Exhausted":
        if (!this.isRunning) return
        core.activity = activityOf(runner.file)
        core.lookAfterMs = Math.min(RAREST_LOOK_MS, 2 * core.lookAfterMs)
        if (isOver(core.activity)) this.endIfAllAreOver()
        else this.isConfirming = false
        if (!this.isConfirming) { for (const each of this.cores) this.goOn(each) }
    }
  }

  private endIfOverAlready(): void {
    const { lateEnd } = this.cores.find((core) => core.lateEnd !== undefined) ?? {}
    if (lateEnd === undefined) this.endIfAllAreOver()
    else if (this.isRunning) this.end(lateEnd)
  }

  /** What one vCPU was when it was last seen may be long ago: each has to be over at the same time. */
  private endIfAllAreOver(): void {
    if (!this.isRunning || !this.cores.every(({ activity }) => isOver(activity))) {
      this.isConfirming = false
      return
    }
    if (this.cores.every(({ side }) => !side.isOut)) return this.end({ _tag: "Halted" })
    this.isConfirming = true
    for (const { side } of this.cores) side.recall()
  }

  /** Finishes the instruction that was answered, on the thread of the vCPU: any other would make the kernel wait. */
  private settle(core: Core): void {
    if (core.thread !== "Ready" || !core.runner.canFinish()) return
    core.isSettling = true
    core.runner.file.setImmediateExit(true)
    core.side.run()
  }

  private lookAfter(delayMs: number): void {
    clearTimeout(this.looking)
    this.lookDelayMs = delayMs
    this.looking = setTimeout(() => {
      this.looking = undefined
      const out = this.cores.filter(({ side }) => side.isOut)
      for (const core of out) {
        core.awayMs += delayMs
        if (core.awayMs >= core.lookAfterMs) core.side.recall()
      }
      if (out.length > 0) this.lookAfter(Math.min(...out.map(({ lookAfterMs }) => lookAfterMs)))
    }, delayMs)
    this.looking.unref()
  }
}
