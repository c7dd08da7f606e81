/**
 * What the dispatching thread does with one vCPU that another thread runs: gives it the turn, calls it back, sends it
 * away. One step at a time, as in `RunnerSide`.
 *
 * Calling back goes by two ways, for the runner may be anywhere: `immediate_exit` is for one that has not entered the
 * guest yet, the signal for one that is inside. The first must be there before the second is sent; then one signal is
 * enough. It may also be late and end some later stay in the guest, which means nothing.
 */
import { Turn, turnWord } from "./words.ts"

/** What ends a stay in the guest. */
export interface Kick {
  /** From now on KVM_RUN returns at once (`kvm_run.immediate_exit`). */
  readonly arm: () => void
  readonly disarm: () => void
  /** Sends the signal that ends a KVM_RUN. */
  readonly send: () => void
}

/** The steps. */
export const DispatcherStep = { None: 0, Disarm: 1, HandOver: 2, Wake: 3, Arm: 4, Send: 5 } as const

const { Arm, Disarm, HandOver, None, Send, Wake } = DispatcherStep

export class DispatcherSide {
  /** The runner has the vCPU, for all that was heard. */
  isOut = false
  /** The runner is gone. */
  isGone = false
  /** The runner was awake when it last got its turn. */
  isRunnerAwake = false
  protected at: number = None
  protected isArmed = false
  protected next: Turn = Turn.Runner
  protected readonly words: Int32Array
  protected readonly turn: number
  protected readonly kick: Kick
  protected readonly wake: (word: number) => void

  /** `wake` wakes whoever waits for a word. */
  constructor(words: Int32Array, vcpu: number, kick: Kick, wake: (word: number) => void) {
    this.words = words
    this.turn = turnWord(vcpu)
    this.kick = kick
    this.wake = wake
  }

  /** Lets the vCPU run up to its next exit. Only while it is not out. */
  run(): void {
    this.beginRun()
    this.finish()
  }

  /** Ends the stay in the guest; {@link isOut} says when that is so. May be said again, and for nothing. */
  recall(): void {
    this.beginRecall()
    this.finish()
  }

  /** Sends the runner away for good. Only while the vCPU is not out. */
  leave(): void {
    this.beginLeave()
    this.finish()
  }

  beginRun(): void {
    this.handOver(Turn.Runner)
  }

  beginRecall(): void {
    this.at = this.isOut ? Arm : None
  }

  beginLeave(): void {
    this.handOver(Turn.Leave)
  }

  /** Takes a step of what was begun; false after the last. */
  step(): boolean {
    switch (this.at) {
      case None:
        return false
      case Disarm:
        this.kick.disarm()
        this.isArmed = false
        this.at = HandOver
        return true
      case HandOver: {
        this.isOut = true
        const was = Atomics.exchange(this.words, this.turn, this.next)
        this.isRunnerAwake = was === Turn.Dispatcher
        this.at = this.isRunnerAwake ? None : Wake
        break
      }
      case Arm:
        this.isArmed = true
        this.kick.arm()
        this.at = Send
        return true
      case Send:
        this.kick.send()
        this.at = None
        break
      default:
        this.wake(this.turn)
        this.at = None
    }
    return this.at !== None
  }

  /** Whether the turn was given back, which is heard once. One step. */
  hear(): boolean {
    const turn = Atomics.load(this.words, this.turn)
    if (isTheirs(turn)) return false
    this.isOut = false
    this.isGone = turn === Turn.Gone
    return true
  }

  /** Whether the runner has the vCPU, heard of or not. One step. */
  isAway(): boolean {
    return this.isOut && isTheirs(Atomics.load(this.words, this.turn))
  }

  /** The runner's thread died: it gives nothing back any more. */
  lose(): void {
    this.isOut = false
    this.isGone = true
  }

  protected handOver(to: Turn): void {
    if (this.isOut || this.isGone) {
      this.at = None
      return
    }
    this.next = to
    this.at = this.isArmed ? Disarm : HandOver
  }

  protected finish(): void {
    while (this.step()) { /* All of it. */ }
  }
}

const isTheirs = (turn: number): boolean => turn === Turn.Runner || turn === Turn.Leave
