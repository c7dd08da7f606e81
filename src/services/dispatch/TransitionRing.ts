/**
 * Steps of the slots, from the vCPU in whose stack they are taken to readers that run in turns of their own: a ring of
 * plain numbers, one for each step, written without allocation and turned into values when they are read.
 *
 * A reader that falls behind loses the oldest steps; how many is counted to the step.
 */
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Stream from "effect/Stream"
import type { VcpuId } from "../../domain/Address.ts"
import { MAX_VCPUS } from "../../domain/Limits.ts"
import type { RequestTransition } from "../../domain/RequestState.ts"

/** The steps that the Service VM takes. */
export const StepCode = { Claim: 0, Complete: 1, Answer: 2 } as const

const STEPS = [
  { from: "Pending", command: "Claim", to: "Processing" },
  { from: "Processing", command: "Complete", to: "Complete" },
  { from: "Pending", command: "Answer", to: "Complete" }
] as const

// The steps of one turn of a simulated vCPU that does nothing but I/O fit, so a reader that keeps up loses none.
const CAPACITY = 1 << 14
const MASK = CAPACITY - 1
const VCPU_BITS = Math.log2(MAX_VCPUS)

interface Reader {
  /** Steps written before it came and steps that it has read or lost. */
  position: number
  lost: number
}

interface Sleeper {
  readonly fiber: Fiber.Fiber<unknown, unknown>
  readonly wake: () => void
}

export class TransitionRing {
  /** The steps from now on. */
  readonly stream: Stream.Stream<RequestTransition>
  private epochs = new Float64Array(0)
  private steps = new Uint8Array(0)
  private written = 0
  private readers: ReadonlyArray<Reader> = []
  private sleepers: Array<Sleeper> = []
  /** What readers lost that are gone. */
  private lostByGone = 0
  private readonly onChange: (isRead: boolean) => void

  /** `onChange` learns whether anybody reads: nothing needs to be written when nobody does. */
  constructor(onChange: (isRead: boolean) => void) {
    this.onChange = onChange
    this.stream = Stream.unwrap(Effect.map(
      Effect.acquireRelease(Effect.sync(() => this.enter()), (reader) => Effect.sync(() => this.leave(reader))),
      (reader) => Stream.fromPull(Effect.succeed(this.pull(reader)))
    ))
  }

  /** Steps that readers lost, those of all readers together. */
  get lost(): number {
    return this.readers.reduce((sum, reader) => sum + reader.lost + this.overrun(reader), this.lostByGone)
  }

  write(vcpu: number, epoch: number, step: number): void {
    const index = this.written & MASK
    this.epochs[index] = epoch
    this.steps[index] = step << VCPU_BITS | vcpu
    this.written++
    if (this.sleepers.length > 0) this.wakeSoon()
  }

  private enter(): Reader {
    if (this.steps.length === 0) {
      this.epochs = new Float64Array(CAPACITY)
      this.steps = new Uint8Array(CAPACITY)
    }
    const reader: Reader = { position: this.written, lost: 0 }
    this.setReaders([...this.readers, reader])
    return reader
  }

  private leave(reader: Reader): void {
    this.lostByGone += reader.lost + this.overrun(reader)
    this.setReaders(this.readers.filter((other) => other !== reader))
  }

  private setReaders(readers: ReadonlyArray<Reader>): void {
    this.readers = readers
    this.onChange(readers.length > 0)
  }

  /** Steps that were written over before a reader took them. */
  private overrun(reader: Reader): number {
    return Math.max(0, this.written - CAPACITY - reader.position)
  }

  private pull(reader: Reader) {
    return Effect.suspend(() =>
      reader.position < this.written
        ? Effect.succeed(this.take(reader))
        : Effect.map(this.news, () => this.take(reader))
    )
  }

  private take(reader: Reader): [RequestTransition, ...Array<RequestTransition>] {
    const overrun = this.overrun(reader)
    reader.lost += overrun
    const first = reader.position + overrun
    reader.position = this.written
    const batch: [RequestTransition, ...Array<RequestTransition>] = [this.at(first)]
    for (let position = first + 1; position < this.written; position++) batch.push(this.at(position))
    return batch
  }

  private at(position: number): RequestTransition {
    const index = position & MASK
    const packed = this.steps[index]!
    const vcpu = (packed & MAX_VCPUS - 1) as VcpuId
    const { command, from, to } = STEPS[packed >> VCPU_BITS]!
    return { _tag: "RequestTransition", vcpu, epoch: this.epochs[index]!, from, command, to }
  }

  /** Until a step is written, and then a turn of the reader's own: it must not run in the stack of the vCPU. */
  private readonly news: Effect.Effect<void> = Effect.withFiber((fiber) =>
    Effect.callback<void>((resume) => {
      const sleeper: Sleeper = { fiber, wake: () => resume(Effect.void) }
      this.sleepers.push(sleeper)
      return Effect.sync(() => {
        this.sleepers = this.sleepers.filter((other) => other !== sleeper)
      })
    })
  )

  private wakeSoon(): void {
    const sleepers = this.sleepers
    this.sleepers = []
    for (const { fiber, wake } of sleepers) fiber.currentDispatcher.scheduleTask(wake, 0)
  }
}
