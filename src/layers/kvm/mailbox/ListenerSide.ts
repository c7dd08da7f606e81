/**
 * How the dispatching thread hears which of a VM's vCPUs were given back, one step at a time, as in `RunnerSide`.
 *
 * The bell is made quiet before it looks, and the dispatcher sleeps only if the bell is quiet still: a turn that is given
 * back while it looks rings after that, so it looks again.
 */
import type { DispatcherSide } from "./DispatcherSide.ts"
import type { Spin } from "./Spin.ts"
import { Bell, BELL_WORD, resultWord } from "./words.ts"

/**
 * What is to be done before the next step:
 *
 * - `Step`: nothing.
 * - `Spin`: nothing; the processor may be told that this is a wait.
 * - `Back`: the vCPU {@link ListenerSide.vcpu} was given back, with {@link ListenerSide.result} unless its runner is gone.
 * - `Sleep`: wait while the word of the bell is `Asleep`.
 */
export const ListenerNext = { Step: 0, Spin: 1, Back: 2, Sleep: 3 } as const
export type ListenerNext = typeof ListenerNext[keyof typeof ListenerNext]

/** The steps. */
export const ListenerStep = { Quieten: 0, Look: 1, LoadResult: 2, LoadBell: 3, FallAsleep: 4 } as const

const { FallAsleep, LoadBell, LoadResult, Look, Quieten } = ListenerStep

export class ListenerSide {
  vcpu = 0
  result = 0
  protected at: number = Quieten
  protected next = 0
  protected readonly words: Int32Array
  protected readonly sides: ReadonlyArray<DispatcherSide>
  protected readonly spin: Spin

  constructor(words: Int32Array, sides: ReadonlyArray<DispatcherSide>, spin: Spin) {
    this.words = words
    this.sides = sides
    this.spin = spin
  }

  step(): ListenerNext {
    const { words } = this
    switch (this.at) {
      case Quieten:
        Atomics.store(words, BELL_WORD, Bell.Quiet)
        this.next = 0
        this.at = Look
        return ListenerNext.Step
      case Look:
        return this.look()
      case LoadResult:
        this.vcpu = this.next++
        this.result = Atomics.load(words, resultWord(this.vcpu))
        this.at = Look
        return ListenerNext.Back
      case LoadBell:
        if (Atomics.load(words, BELL_WORD) === Bell.Rung) {
          this.spin.came()
          this.at = Quieten
        } else if (!this.spin.again()) {
          this.at = FallAsleep
        }
        return ListenerNext.Spin
      default:
        return this.fallAsleep()
    }
  }

  /** Looks at the next vCPU that is out. */
  protected look(): ListenerNext {
    const { sides } = this
    while (this.next < sides.length && !sides[this.next]!.isOut) this.next++
    if (this.next === sides.length) {
      this.spin.begin(sides.some(isWithOneAwake))
      if (!this.spin.again()) return this.fallAsleep()
      this.at = LoadBell
      return ListenerNext.Spin
    }
    if (sides[this.next]!.hear()) this.at = LoadResult
    else this.next++
    return ListenerNext.Step
  }

  protected fallAsleep(): ListenerNext {
    this.at = Quieten
    if (Atomics.compareExchange(this.words, BELL_WORD, Bell.Quiet, Bell.Asleep) !== Bell.Quiet) return ListenerNext.Step
    this.spin.missed()
    return ListenerNext.Sleep
  }
}

const isWithOneAwake = ({ isOut, isRunnerAwake }: DispatcherSide): boolean => isOut && isRunnerAwake
