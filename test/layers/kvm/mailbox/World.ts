/**
 * The mailbox with all that is around it, as a model that can be explored: the sides are the real ones; the guest, the
 * kernel, the threads' sleep and what the dispatcher does with a vCPU are models.
 *
 * KVM_RUN is modelled in two parts: it reads `immediate_exit`, and is then in the guest, until the guest makes a request
 * or a signal comes. A signal that comes elsewhere is taken by its handler at some later time, or finds a KVM_RUN first.
 */
import { DispatcherSide, type Kick } from "../../../../src/layers/kvm/mailbox/DispatcherSide.ts"
import { ListenerNext, ListenerSide } from "../../../../src/layers/kvm/mailbox/ListenerSide.ts"
import { RunnerNext, RunnerSide, RunnerStep } from "../../../../src/layers/kvm/mailbox/RunnerSide.ts"
import { Spin } from "../../../../src/layers/kvm/mailbox/Spin.ts"
import { StandstillNext, StandstillSide } from "../../../../src/layers/kvm/mailbox/StandstillSide.ts"
import { Bell, BELL_WORD, makeWords, resultWord, Turn, turnWord } from "../../../../src/layers/kvm/mailbox/words.ts"
import type { Model, Move } from "./explore.ts"

/** The parts that are explored, as they are or with a bug. */
export interface Parts {
  readonly Runner: typeof RunnerSide
  readonly Dispatcher: typeof DispatcherSide
  readonly Listener: typeof ListenerSide
  readonly Standstill: typeof StandstillSide
  /** Whether a wait takes whatever is there for what it was told to wait at. */
  readonly runnerWaitsAtAnything: boolean
  readonly dispatcherWaitsAtAnything: boolean
}

export const realParts: Parts = {
  Runner: RunnerSide,
  Dispatcher: DispatcherSide,
  Listener: ListenerSide,
  Standstill: StandstillSide,
  runnerWaitsAtAnything: false,
  dispatcherWaitsAtAnything: false
}

/**
 * What the dispatcher does in a turn of its own, as soon as it can and as late as it likes. `AwaitPaused` and `AwaitGone`
 * can only be taken once it is so.
 */
export type Action = "Resume" | "StandStill" | "Pause" | "AwaitPaused" | "Reset" | "Leave" | "AwaitGone"

export interface Scenario {
  readonly name: string
  readonly script: ReadonlyArray<Action>
  /** Requests that the guest of each vCPU makes in each of its lives; then it goes on without any. */
  readonly requests: ReadonlyArray<number>
  /** When a request is answered: at once, or in a later turn. */
  readonly answers: "AtOnce" | "Later"
  /** Looks before falling asleep. */
  readonly spins?: number
}

/** Looks as often each time: what it learned would be state that nothing here depends on. */
class FixedSpin extends Spin {
  private looked = 0

  constructor(most: number) {
    super({ most, tries: false })
  }

  override begin(): void {
    this.looked = 0
  }

  override again(): boolean {
    return this.looked++ < this.most
  }

  override came(): void {/* Nothing learned. */}
  override missed(): void {/* Nothing learned. */}
}

const RESULT_INTERRUPTED = -4
const RESULT_REQUEST = 0

/** Where a vCPU's thread is. */
const At = { Step: 0, Entering: 1, InGuest: 2, FallingAsleep: 3, Asleep: 4, Over: 5 } as const

interface VcpuModel {
  at: number
  immediateExit: boolean
  isSignalled: boolean
  /** Requests that the guest will still make in this life. */
  requests: number
  /** An exit of the guest's that is not finished by entering again. */
  isOpen: boolean
  /** What the dispatcher knows of the vCPU: it waits for an answer. */
  isWaiting: boolean
  made: number
  answered: number
}

/** How far it is with a standstill, for which it keeps its thread. */
const Standing = { No: 0, Recalling: 1, Step: 2, FallingAsleep: 3, Asleep: 4 } as const

/** Where the dispatcher is in its turn: in none; listening; looking whether it may sleep; asleep. */
const Listening = { Idle: 0, Step: 1, FallingAsleep: 2, Asleep: 3 } as const

export class World implements Model {
  readonly state: ReadonlyArray<object>
  /** The first is for a spin that learns; the other is read only by whoever was just told that it is new. */
  readonly irrelevant = new Set(["isRunnerAwake", "vcpu"])
  readonly words: Int32Array
  readonly usedWords: ReadonlyArray<number>
  readonly runners: ReadonlyArray<RunnerSide>
  readonly sides: ReadonlyArray<DispatcherSide>
  readonly vcpus: ReadonlyArray<VcpuModel>
  private readonly scenario: Scenario
  private readonly parts: Parts
  private readonly listener: ListenerSide
  private readonly standstill: StandstillSide
  private readonly dispatcher = {
    listening: Listening.Step as number,
    isRunning: false,
    isSending: false,
    standing: Standing.No as number,
    /** The vCPU whose side has steps to take, and then all after it, up to the end. */
    acting: -1,
    actingEnd: 0,
    action: 0
  }

  constructor(scenario: Scenario, parts: Parts = realParts) {
    this.scenario = scenario
    this.parts = parts
    const { Dispatcher, Listener, Runner, Standstill } = parts
    const { requests, spins = 0 } = scenario
    const count = requests.length
    this.words = makeWords(count)
    const { words } = this
    const wake = (word: number) => this.wake(word)
    const vcpuIds = Array.from({ length: count }, (_, vcpu) => vcpu)
    this.vcpus = vcpuIds.map((vcpu) => ({
      at: At.Step,
      immediateExit: false,
      isSignalled: false,
      requests: requests[vcpu]!,
      isOpen: false,
      isWaiting: false,
      made: 0,
      answered: 0
    }))
    this.runners = vcpuIds.map((vcpu) => new Runner(words, vcpu, new FixedSpin(spins), wake))
    this.sides = vcpuIds.map((vcpu) => new Dispatcher(words, vcpu, this.kick(this.vcpus[vcpu]!), wake))
    this.listener = new Listener(words, this.sides, new FixedSpin(spins))
    this.standstill = new Standstill(words, this.sides, wake)
    this.usedWords = [BELL_WORD, ...vcpuIds.flatMap((vcpu) => [turnWord(vcpu), resultWord(vcpu)])]
    this.state = [this.vcpus, this.runners, this.sides, this.listener, this.standstill, this.dispatcher]
  }

  moves(): ReadonlyArray<Move> {
    return [...this.vcpus.keys().flatMap((vcpu) => this.runnerMoves(vcpu)), ...this.dispatcherMoves()]
  }

  /** Only one of both may be at a vCPU; after a pause, and a leave, that is the dispatcher. */
  problem(): string | undefined {
    const thief = this.vcpus.findIndex((model, vcpu) => this.isAtVcpu(model, vcpu) && !this.sides[vcpu]!.isOut)
    return thief < 0 ? undefined : `runner ${thief} is at a vCPU that is not its own`
  }

  problemAtRest(): string | undefined {
    const { dispatcher, sides, vcpus, words } = this
    if (dispatcher.standing !== Standing.No) return "the dispatcher waits for a vCPU that does not come"
    for (const [vcpu, model] of vcpus.entries()) {
      const turn = words[turnWord(vcpu)]!
      const isToAct = turn === Turn.Runner || turn === Turn.Leave
      if (model.at === At.Asleep && isToAct) return `runner ${vcpu} sleeps, but it is its turn`
      if (model.at === At.InGuest && !dispatcher.isRunning) return `vCPU ${vcpu} runs on through a pause`
      if (sides[vcpu]!.isOut && !isToAct) return `vCPU ${vcpu} is back, but the dispatcher sleeps`
      if (dispatcher.isRunning && !model.isWaiting && !sides[vcpu]!.isOut) return `vCPU ${vcpu} could run`
    }
    return undefined
  }

  isDone(): boolean {
    const { action, isRunning } = this.dispatcher
    return action === this.scenario.script.length &&
      this.vcpus.every((vcpu) =>
        vcpu.answered === vcpu.made && (!isRunning || vcpu.requests === 0 && vcpu.at === At.InGuest)
      )
  }

  private isAtVcpu({ at }: VcpuModel, vcpu: number): boolean {
    if (at === At.Entering || at === At.InGuest) return true
    const step = (this.runners[vcpu] as unknown as { readonly at: number }).at
    return at === At.Step && (step === RunnerStep.StoreResult || step === RunnerStep.StoreTurn)
  }

  private kick(model: VcpuModel): Kick {
    return {
      arm: () => {
        model.immediateExit = true
      },
      disarm: () => {
        model.immediateExit = false
      },
      send: () => {
        model.isSignalled = true
      }
    }
  }

  private wake(word: number): void {
    const { dispatcher } = this
    if (word === BELL_WORD) {
      if (dispatcher.listening === Listening.Asleep) dispatcher.listening = Listening.Idle
      if (dispatcher.standing === Standing.Asleep) dispatcher.standing = Standing.Step
      return
    }
    const sleeper = this.vcpus.find((model, vcpu) => turnWord(vcpu) === word && model.at === At.Asleep)
    if (sleeper !== undefined) sleeper.at = At.Step
  }

  private runnerMoves(vcpu: number): ReadonlyArray<Move> {
    const model = this.vcpus[vcpu]!
    const move = (name: string, take: () => void, isOptional = false): Move => ({
      name: `runner ${vcpu} ${name}`,
      isOptional,
      take
    })
    const moves: Array<Move> = []
    if (model.isSignalled && model.at !== At.InGuest) {
      moves.push(move("takes the signal", () => {
        model.isSignalled = false
      }, true))
    }
    switch (model.at) {
      case At.Step:
        moves.push(move(this.stepName(vcpu), () => this.runnerStep(vcpu)))
        break
      case At.Entering:
        moves.push(move("reads immediate_exit", () => this.enter(vcpu)))
        break
      case At.InGuest:
        if (model.isSignalled) {
          moves.push(move("is interrupted", () => {
            model.isSignalled = false
            this.exit(vcpu, RESULT_INTERRUPTED)
          }))
        }
        if (model.requests > 0) {
          moves.push(move("makes a request", () => {
            model.requests--
            model.made++
            model.isOpen = true
            this.exit(vcpu, RESULT_REQUEST)
          }, true))
        }
        break
      case At.FallingAsleep:
        moves.push(move("waits", () => {
          const isEqual = this.words[turnWord(vcpu)] === Turn.DispatcherWhileAsleep
          model.at = isEqual || this.parts.runnerWaitsAtAnything ? At.Asleep : At.Step
        }))
        break
      default:
        break
    }
    return moves
  }

  private stepName(vcpu: number): string {
    const { at } = this.runners[vcpu] as unknown as { readonly at: number }
    return Object.entries(RunnerStep).find(([, step]) => step === at)?.[0] ?? String(at)
  }

  private runnerStep(vcpu: number): void {
    const model = this.vcpus[vcpu]!
    switch (this.runners[vcpu]!.step()) {
      case RunnerNext.Enter:
        model.at = At.Entering
        break
      case RunnerNext.Sleep:
        model.at = At.FallingAsleep
        break
      case RunnerNext.End:
        model.at = At.Over
        break
      default:
        break
    }
  }

  private enter(vcpu: number): void {
    const model = this.vcpus[vcpu]!
    if (model.isOpen && model.answered !== model.made) throw new Error(`vCPU ${vcpu} goes on without its answer`)
    model.isOpen = false
    if (model.immediateExit) this.exit(vcpu, RESULT_INTERRUPTED)
    else model.at = At.InGuest
  }

  private exit(vcpu: number, result: number): void {
    this.vcpus[vcpu]!.at = At.Step
    this.runners[vcpu]!.exited(result)
  }

  /** It is one thread: a turn that was begun goes on to its end. */
  private dispatcherMoves(): ReadonlyArray<Move> {
    const { dispatcher } = this
    if (dispatcher.acting >= 0) return [this.dispatcherMove("acts", () => this.act())]
    if (dispatcher.standing !== Standing.No) return this.standingMoves()
    if (dispatcher.listening === Listening.Step) return [this.dispatcherMove("listens", () => this.listen())]
    if (dispatcher.listening === Listening.FallingAsleep) {
      return [this.dispatcherMove("waits", () => {
        const isEqual = this.words[BELL_WORD] === Bell.Asleep
        dispatcher.listening = isEqual || this.parts.dispatcherWaitsAtAnything ? Listening.Asleep : Listening.Step
      })]
    }
    const moves: Array<Move> = []
    if (dispatcher.listening === Listening.Idle) {
      moves.push(this.dispatcherMove("wakes", () => {
        dispatcher.listening = Listening.Step
      }))
    }
    for (const [vcpu, model] of this.vcpus.entries()) {
      if (!model.isWaiting || this.scenario.answers === "AtOnce") continue
      moves.push(this.dispatcherMove(`answers ${vcpu}`, () => {
        this.answer(vcpu)
        this.begin(vcpu, vcpu + 1)
      }, true))
    }
    const action = this.scenario.script[dispatcher.action]
    if (action !== undefined && this.isPossible(action)) {
      moves.push(this.dispatcherMove(action, () => this.take(action), true))
    }
    return moves
  }

  private standingMoves(): ReadonlyArray<Move> {
    const { dispatcher } = this
    switch (dispatcher.standing) {
      case Standing.Asleep:
        return []
      case Standing.FallingAsleep:
        return [this.dispatcherMove("waits for all", () => {
          dispatcher.standing = this.words[BELL_WORD] === Bell.Asleep ? Standing.Asleep : Standing.Step
        })]
      default:
        return [this.dispatcherMove("looks for all", () => this.standStill())]
    }
  }

  private standStill(): void {
    const { dispatcher } = this
    switch (this.standstill.step()) {
      case StandstillNext.Sleep:
        dispatcher.standing = Standing.FallingAsleep
        break
      case StandstillNext.End:
        dispatcher.standing = Standing.No
        if (this.vcpus.some((model, vcpu) => this.isAtVcpu(model, vcpu))) throw new Error("a vCPU runs on")
        break
      default:
        dispatcher.standing = Standing.Step
    }
  }

  private dispatcherMove(name: string, take: () => void, isOptional = false): Move {
    return { name: `dispatcher ${name}`, isOptional, take }
  }

  private listen(): void {
    const { dispatcher, listener } = this
    switch (listener.step()) {
      case ListenerNext.Back:
        this.onBack(listener.vcpu, listener.result)
        break
      case ListenerNext.Sleep:
        dispatcher.listening = Listening.FallingAsleep
        break
      default:
        break
    }
  }

  private onBack(vcpu: number, result: number): void {
    if (this.sides[vcpu]!.isGone) return
    const model = this.vcpus[vcpu]!
    if (result === RESULT_REQUEST) {
      model.isWaiting = true
      if (this.scenario.answers === "AtOnce") this.answer(vcpu)
    }
    this.begin(vcpu, vcpu + 1)
  }

  private answer(vcpu: number): void {
    const model = this.vcpus[vcpu]!
    if (++model.answered !== model.made) throw new Error(`request ${model.made} was not answered once`)
    model.isWaiting = false
  }

  private isPossible(action: Action): boolean {
    switch (action) {
      case "AwaitPaused":
        return this.sides.every(({ isOut }) => !isOut)
      case "AwaitGone":
        return this.sides.every(({ isGone }) => isGone) && this.vcpus.every(({ at }) => at === At.Over)
      default:
        return true
    }
  }

  private take(action: Action): void {
    const { dispatcher, vcpus } = this
    dispatcher.action++
    switch (action) {
      case "Resume":
        dispatcher.isRunning = true
        return this.begin(0, vcpus.length)
      case "Pause":
        dispatcher.isRunning = false
        return this.begin(0, vcpus.length)
      case "StandStill":
        dispatcher.standing = Standing.Recalling
        this.standstill.begin()
        return this.begin(0, vcpus.length)
      case "Leave":
        dispatcher.isSending = true
        return this.begin(0, vcpus.length)
      case "Reset":
        for (const [vcpu, model] of vcpus.entries()) {
          model.isWaiting = false
          model.isOpen = false
          model.answered = model.made
          model.requests = this.scenario.requests[vcpu]!
        }
        return
      default:
        return
    }
  }

  /** Does with each of these vCPUs what is to be done with it now. */
  private begin(vcpu: number, end: number): void {
    const { dispatcher } = this
    dispatcher.acting = vcpu
    dispatcher.actingEnd = end
    const side = this.sides[vcpu]!
    if (dispatcher.isSending) side.beginLeave()
    else if (!dispatcher.isRunning || dispatcher.standing === Standing.Recalling) side.beginRecall()
    else if (!this.vcpus[vcpu]!.isWaiting) side.beginRun()
  }

  private act(): void {
    if (!this.sides[this.dispatcher.acting]!.step()) this.actOnNext()
  }

  private actOnNext(): void {
    const { dispatcher } = this
    const next = dispatcher.acting + 1
    if (next < dispatcher.actingEnd) this.begin(next, dispatcher.actingEnd)
    else dispatcher.acting = -1
  }
}
