/**
 * Guests that are paused, resumed and reset while their requests are in flight, and the account of every request.
 *
 * Every vCPU writes the numbers 1, 2, 3, ..., or adds them to a register, and keeps every answer it reads. An answer
 * carries the life of the VM in its top byte, so whatever of one life came into the next would be seen in the guest's
 * memory.
 */
import { type Duration, Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import * as IoRange from "../../src/domain/IoRange.ts"
import type { IoRequest, IoValue } from "../../src/domain/IoRequest.ts"
import * as VcpuRegisters from "../../src/domain/VcpuRegisters.ts"
import { seededRandom } from "../../src/layers/model/seededRandom.ts"
import { Machine } from "../../src/services/Machine.ts"
import { VirtualMachine } from "../../src/services/VirtualMachine.ts"
import type { VirtualMachineError } from "../../src/services/VirtualMachineError.ts"
import type { CreatedVm, PausedVm, RunningVm } from "../../src/services/Vm.ts"
import * as Trace from "../../src/testing/Trace.ts"
import * as g from "./guest.ts"
import { turns, until } from "./machines.ts"

/** A number from 0 to below `end`. */
export type Dice = (end: number) => number

export const diceOf = (seed: number): Dice => {
  // Neighbouring seeds begin alike: they are spread first.
  const random = seededRandom(Math.imul(seed, 0x9e37_79b1))
  return (end) => (random() >>> 0) % end
}

/**
 * How the device answers, by the register that is asked. `Late` answers behind its deadline, when the guest has read
 * all-ones already; nothing can interrupt it, so that it comes into later requests and later lives.
 */
const WAYS = ["Exit", "Sync", "Yield", "Sleep", "Host", "Uninterruptible", "Late"] as const
const LATE = WAYS.indexOf("Late")
const PORTS = 0x100
const MMIO = 0xe000_0000
const RAM_BYTES = 0x2_0000
const CODE = 0x1000
const RESULTS = 0x8000
const STRINGS = 0x1_0000
const BYTES_PER_VCPU = 0x800
const STRING_LENGTH = 3
const LIFE = 2 ** 24
const VCPU = 2 ** 20

/** An operand of 32 bits: all of a MOV but its opcode. */
const le32 = (value: number): g.Code => g.mov(0, value).slice(1)

/** EBX is the next number to write, EDI where the next answer goes, EBP counts the rounds. */
const accesses: ReadonlyArray<(way: number, vcpu: number) => g.Code> = [
  // MOV EDX,port; MOV EAX,EBX; OUT DX,EAX; INC EBX
  (way) => [...g.mov(g.Reg.edx, PORTS + 4 * way), 0x89, 0xd8, 0xef, 0x43],
  // MOV EDX,port; IN EAX,DX; STOSD
  (way) => [...g.inp(PORTS + 4 * way, 4), 0xab],
  // MOV [address],EBX; INC EBX
  (way) => [0x89, 0x1d, ...le32(MMIO + 4 * way), 0x43],
  // MOV EAX,[address]; STOSD
  (way) => [...g.load(MMIO + 4 * way), 0xab],
  // ADD [address],EBX; INC EBX: a read and a write of one instruction
  (way) => [0x01, 0x1d, ...le32(MMIO + 4 * way), 0x43],
  // The next numbers into memory; REP OUTSD
  (way, vcpu) => {
    const from = STRINGS + vcpu * 0x100
    const fill = Array.from({ length: STRING_LENGTH }, (_, i) => [0x89, 0x1d, ...le32(from + 4 * i), 0x43]).flat()
    return [...fill, ...g.repOut(PORTS + 4 * way, from, STRING_LENGTH, 4)]
  },
  // REP INSD at EDI
  (way) => [...g.mov(g.Reg.edx, PORTS + 4 * way), ...g.mov(g.Reg.ecx, STRING_LENGTH), 0xf3, 0x6d]
]

const programOf = (dice: Dice, vcpu: number): Uint8Array => {
  const access = () => accesses[dice(accesses.length)]!(dice(WAYS.length), vcpu)
  const body = Array.from({ length: 6 + dice(10) }, access).flat()
  return g.code(
    // Whatever a reset leaves of an instruction that was waiting would become this one's answers.
    [0x01, 0x1d, ...le32(MMIO + 4 * dice(WAYS.length))],
    g.mov(g.Reg.ebx, 1),
    g.mov(g.Reg.edi, RESULTS + vcpu * BYTES_PER_VCPU),
    g.mov(g.Reg.ebp, 3 + dice(6)),
    body,
    // DEC EBP; JNZ body
    [0x4d, 0x0f, 0x85, ...le32(-(body.length + 7))],
    g.stop
  )
}

/** Programs for the vCPUs of one VM. */
export const programsOf = (dice: Dice, vcpus: number): ReadonlyArray<Uint8Array> =>
  Array.from({ length: vcpus }, (_, vcpu) => programOf(dice, vcpu))

interface Question {
  readonly request: IoRequest
  readonly life: number
  answers: number
}

/** The device, and its books: each request that it was asked, in which life, and how often that was answered. */
export class Books {
  life: number
  readonly questions: Array<Question> = []
  /** Handlers under way, but for those behind their deadline. */
  running = 0
  /** Handlers that ended in another life than the one in which they were asked. */
  outlived = 0
  readonly problems: Array<string> = []
  private readonly dice: Dice
  private readonly open = new Map<IoRequest, Question>()
  private asked: Array<number> = []
  private countdown = Infinity
  private onZero: () => void = () => undefined

  constructor(dice: Dice, life: number) {
    this.dice = dice
    this.life = life
  }

  /** Calls back inside the handler of the request that comes after `count` more. */
  after(count: number, onZero: () => void): void {
    this.countdown = count
    this.onZero = onZero
  }

  readonly device = Effect.gen({ self: this }, function*() {
    const machine = yield* Machine
    const runOnHost = Effect.runForkWith(yield* Effect.context())
    /** Answered by the host, some turns of its event loop later, whether anybody still waits or not. */
    const later = (least: number, most: number) =>
      Effect.callback<void>((resume) => {
        runOnHost(Effect.andThen(turns(least + this.dice(most - least + 1)), Effect.sync(() => resume(Effect.void))))
      })
    const waits = {
      Yield: Effect.yieldNow,
      Sleep: Effect.suspend(() => Effect.sleep(`${1 + this.dice(3)} micros`)),
      Host: later(1, 5),
      Uninterruptible: Effect.uninterruptible(later(1, 5)),
      Late: Effect.uninterruptible(later(10, 50))
    }
    const handle = (request: IoRequest): Effect.Effect<IoValue> => {
      const { life } = this
      const answer = this.ask(request)
      const way = WAYS[wayOf(request)]!
      if (way === "Exit") return Effect.succeed(answer)
      if (way === "Sync") return Effect.sync(() => answer)
      const wait = Effect.as(waits[way], answer)
      if (way === "Late") {
        return Effect.onExit(wait, () =>
          Effect.sync(() => {
            if (life !== this.life) this.outlived++
          }))
      }
      this.running++
      return Effect.onExit(wait, () => Effect.sync(() => this.running--))
    }
    yield* machine.onReset(Effect.sync(() => {
      this.life++
      this.asked = []
    }))
    yield* machine.io.observe({ onComplete: (_, request) => this.completed(request) })
    const register = (name: string, first: number, last: number, deadline: { deadline?: Duration.Input }) =>
      machine.io.register({
        name,
        ranges: [
          IoRange.ports(PORTS + 4 * first, PORTS + 4 * last + 3),
          IoRange.mmio(MMIO + 4 * first, MMIO + 4 * last + 3)
        ],
        handle,
        ...deadline
      })
    yield* register("device", 0, LATE - 1, {})
    yield* register("late", LATE, LATE, { deadline: "1 micros" })
  })

  private ask(request: IoRequest): number {
    const question: Question = { request, life: this.life, answers: 0 }
    this.questions.push(question)
    this.open.set(request, question)
    const index = this.asked[request.vcpu] = (this.asked[request.vcpu] ?? 0) + 1
    if (--this.countdown < 0) {
      this.countdown = Infinity
      this.onZero()
    }
    return this.life * LIFE + request.vcpu * VCPU + index
  }

  private completed(request: IoRequest): void {
    const question = this.open.get(request)
    if (question === undefined) this.problems.push(`completed without being asked: ${shown(request, this.life)}`)
    else {
      question.answers++
      if (question.life !== this.life) this.problems.push(`of life ${question.life} in life ${this.life}`)
    }
  }

  /** What each vCPU asked in a life, in order, without the number of that life. */
  askedIn(life: number, vcpus: number): ReadonlyArray<ReadonlyArray<string>> {
    const inLife = this.questions.filter((question) => question.life === life).map(({ request }) => request)
    return Array.from(
      { length: vcpus },
      (_, vcpu) => inLife.filter((request) => request.vcpu === vcpu).map((request) => shown(request, life))
    )
  }
}

const placeOf = (request: IoRequest): number =>
  "port" in request ? request.port : "address" in request ? request.address : -1

const wayOf = (request: IoRequest): number => (placeOf(request) & 0xff) >> 2

/** Of another life's value the life stays, to be seen. */
const shown = (request: IoRequest, life: number): string => {
  const place = `${request._tag} ${placeOf(request).toString(16)}`
  if (!("value" in request)) return place
  const value = Number(request.value)
  return `${place} ${Math.floor(value / LIFE) === life ? value % LIFE : value}`
}

/** What is left of a run. */
export interface Outcome {
  readonly memory: Uint8Array
  /** The trace of each vCPU in the last life. */
  readonly traces: ReadonlyArray<string>
  /** The trace of all vCPUs, in the last life. */
  readonly trace: string
  readonly books: Books
  readonly cycles: Cycles
}

/** How often what was done. */
export interface Cycles {
  readonly resumed: number
  readonly reset: number
  /** Pauses that ended with their deadline, so that the guest went on. */
  readonly givenUp: number
  /** Requests that stood in the page when the VM was reset: not asked yet, or answered and not taken. */
  readonly dropped: number
  /** Completions of requests that were claimed by hand before the reset. */
  readonly stale: number
}

const created = (books: Books, programs: ReadonlyArray<Uint8Array>) =>
  Effect.gen(function*() {
    const machines = yield* VirtualMachine
    const vm = yield* machines.create({ memoryBytes: RAM_BYTES, vcpus: programs.length })
    for (const [vcpu, bytes] of programs.entries()) {
      const entry = CODE + vcpu * 0x1000
      yield* vm.memory.write(entry, bytes)
      yield* vm.setRegisters(vcpu, VcpuRegisters.flat32({ entry, stack: RAM_BYTES - vcpu * 0x100 }))
    }
    yield* vm.attach(books.device)
    return vm
  })

const tracesOf = (entries: ReadonlyArray<Trace.TraceEntry>, vcpus: number): ReadonlyArray<string> =>
  Array.from({ length: vcpus }, (_, vcpu) => Trace.hash(entries.filter((entry) => entry.request.vcpu === vcpu)))

const none: Cycles = { resumed: 0, reset: 0, givenUp: 0, dropped: 0, stale: 0 }

/** The same guests from their reset to their end with nothing in between; the device begins in `life`. */
export const undisturbed = (programs: ReadonlyArray<Uint8Array>, life: number) =>
  Effect.scoped(Effect.gen(function*() {
    const books = new Books(diceOf(1), life)
    const vm = yield* created(books, programs)
    const recording = yield* Trace.record(vm)
    const running = yield* vm.start
    yield* running.ended
    yield* running.pause
    const { entries, hash } = yield* recording.trace
    const memory = yield* vm.memory.read(0, RAM_BYTES)
    return { memory, traces: tracesOf(entries, vm.vcpus), trace: hash, books, cycles: none } satisfies Outcome
  }))

const MAX_RESETS = 6

/** Begins a pause inside the handler of one of the next requests, or some turns of the host later. */
const beginPause = (books: Books, running: RunningVm, dice: Dice) =>
  Effect.gen(function*() {
    const run = Effect.runForkWith(yield* Effect.context())
    const ending = run(running.ended)
    const isEnded = () => ending.pollUnsafe() !== undefined
    if (dice(2) === 0) {
      yield* turns(dice(5))
      return isEnded() ? undefined : run(running.pause)
    }
    let pausing: Fiber.Fiber<PausedVm, VirtualMachineError> | undefined
    books.after(dice(8), () => {
      pausing = run(running.pause)
    })
    yield* until(() => pausing !== undefined || isEnded())
    return pausing
  })

/** A pause that begins somewhere; now and then its deadline comes before the handlers are done. */
const pauseSomewhere = (books: Books, running: RunningVm, dice: Dice) =>
  Effect.gen(function*() {
    const pausing = yield* beginPause(books, running, dice)
    if (pausing === undefined) return "Ended"
    if (dice(8) === 0) yield* TestClock.adjust("1 second")
    const paused = yield* Effect.result(Fiber.join(pausing))
    if (paused._tag === "Success") return paused.success
    return paused.failure.reason._tag === "NotDrained" ? "GivenUp" : yield* paused.failure
  })

/** Nothing runs, and nothing is unwritten. */
const watchStill = (vm: CreatedVm, books: Books, dice: Dice) =>
  Effect.gen(function*() {
    const look = Effect.gen(function*() {
      const { slots } = yield* vm.requests.inspect
      return {
        asked: books.questions.length,
        slots: slots.map(({ epoch, held, state, vcpu }) => ({ epoch, held, state, vcpu })),
        memory: yield* vm.memory.read(RESULTS, 4 * BYTES_PER_VCPU)
      }
    })
    const before = yield* look
    yield* turns(dice(4))
    const after = yield* look
    if (books.running !== 0) books.problems.push(`${books.running} handlers run in a paused VM`)
    if (before.asked !== after.asked) books.problems.push("a paused VM asked its device")
    if (Buffer.compare(before.memory, after.memory) !== 0) books.problems.push("a paused VM changed its memory")
    if (JSON.stringify(before.slots) !== JSON.stringify(after.slots)) books.problems.push("a paused VM's slots changed")
    if (after.slots.some(({ held, state }) => held || state === "Processing")) {
      books.problems.push("a paused VM's request is held")
    }
  })

/** Takes a request that a paused VM shows, by hand, and never answers it before the VM is reset. */
const claimOne = (vm: CreatedVm) =>
  Effect.gen(function*() {
    for (let vcpu = 0; vcpu < vm.vcpus; vcpu++) {
      const slot = yield* vm.requests.pending(vcpu)
      if (slot !== undefined) return yield* slot.claim
    }
    return undefined
  })

const inFlight = (vm: CreatedVm) =>
  Effect.map(vm.requests.inspect, ({ slots }) => slots.filter(({ state }) => state !== "Free").length)

/** Runs the guests to their end, and on the way pauses, resumes and resets them as the dice fall. */
export const disturbed = (programs: ReadonlyArray<Uint8Array>, dice: Dice) =>
  Effect.scoped(Effect.gen(function*() {
    const books = new Books(dice, 0)
    const vm = yield* created(books, programs)
    const recording = yield* Trace.record(vm)
    const cycles = { ...none }
    let lifeBegan = 0
    let running = yield* vm.start

    for (;;) {
      const paused = yield* pauseSomewhere(books, running, dice)
      if (paused === "Ended") break
      if (paused === "GivenUp") {
        cycles.givenUp++
        continue
      }
      // What a program does to its own drains is none of the pause's business.
      if (dice(4) === 0) yield* vm.io.proceed
      yield* watchStill(vm, books, dice)
      if (cycles.reset < MAX_RESETS && dice(6) === 0) {
        cycles.dropped += yield* inFlight(vm)
        const claimed = dice(2) === 0 ? yield* claimOne(vm) : undefined
        const again = yield* paused.reset
        if (books.running !== 0) books.problems.push(`${books.running} handlers outlived a reset`)
        if ((yield* inFlight(vm)) !== 0) books.problems.push("a request outlived a reset")
        lifeBegan = (yield* recording.trace).entries.length
        yield* turns(dice(3))
        running = yield* again.start
        if (claimed !== undefined) {
          yield* turns(dice(4))
          const refused = yield* Effect.flip(claimed.complete(0))
          if (refused.reason._tag !== "Stale") books.problems.push(`a claim of an earlier life: ${refused.message}`)
          cycles.stale++
        }
        cycles.reset++
      } else {
        running = yield* paused.resume
        cycles.resumed++
      }
    }
    yield* running.pause
    for (const event of yield* vm.io.recentEvents) {
      if (event._tag !== "DeadlinePassed") books.problems.push(JSON.stringify(event))
    }
    const entries = (yield* recording.trace).entries.slice(lifeBegan)
    return {
      memory: yield* vm.memory.read(0, RAM_BYTES),
      traces: tracesOf(entries, vm.vcpus),
      trace: Trace.hash(entries),
      books,
      cycles
    } satisfies Outcome
  }))
