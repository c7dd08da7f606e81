/**
 * What a trip costs 15 vCPUs while the client of a sixteenth never answers, counted instead of timed. The peer is the
 * same with the sixteenth vCPU halted. Nothing of it depends on the host, so the ratio is exactly 1.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Scheduler from "effect/Scheduler"
import * as IoRange from "../src/domain/IoRange.ts"
import type { IoValue } from "../src/domain/IoRequest.ts"
import { MAX_VCPUS } from "../src/domain/Limits.ts"
import * as Simulated from "../src/layers/Simulated.ts"
import { ServiceMemory, type ServicePage } from "../src/services/ServiceMemory.ts"
import * as VirtualMachine from "../src/services/VirtualMachine.ts"
import * as GuestProgram from "../src/testing/GuestProgram.ts"
import type { Figure } from "./harness.ts"

const OTHERS = MAX_VCPUS - 1
const TRIPS_EACH = 1000
const STUCK_PORT = 0x60
const GATE_PORT = 0x64
const portOf = (vcpu: number): number => 0x1000 + 0x10 * vcpu

/** The steps of all trips together. */
export interface Steps {
  readonly trips: number
  /** Reads and writes of the page of requests by the Service VM. */
  readonly pageAccesses: number
  /** Tasks that the host's scheduler ran. */
  readonly hostTasks: number
  /** Guest time, in instructions of the simulated vCPU. */
  readonly instructions: number
}

const NANOS_PER_INSTRUCTION = 10

const countedPage = (page: ServicePage, count: () => void): ServicePage => ({
  load32: (offset) => {
    count()
    return page.load32(offset)
  },
  store32: (offset, value) => {
    count()
    page.store32(offset, value)
  },
  fetchRequest: (offset, words) => {
    count()
    page.fetchRequest(offset, words)
  },
  storeRequest: (offset, words) => page.storeRequest(offset, words)
})

const countedScheduler = (scheduler: Scheduler.Scheduler, count: () => void): Scheduler.Scheduler => ({
  executionMode: scheduler.executionMode,
  shouldYield: (fiber) => scheduler.shouldYield(fiber),
  makeDispatcher: () => {
    const dispatcher = scheduler.makeDispatcher()
    return {
      scheduleTask: (task, priority) =>
        dispatcher.scheduleTask(() => {
          count()
          task()
        }, priority),
      flush: () => dispatcher.flush()
    }
  }
})

/** vCPU 0 asks the client that never answers, or halts in that instruction's place; the others make trips. */
const programs = (isStuck: boolean) =>
  Result.getOrThrow(GuestProgram.assembleAll([
    [isStuck ? { _tag: "PortIn", port: STUCK_PORT, size: 4 } : { _tag: "Code", bytes: Uint8Array.of(0xf4) }],
    ...Array.from({ length: OTHERS }, (_, i): ReadonlyArray<GuestProgram.OperationInput> => [
      { _tag: "PortIn", port: GATE_PORT, size: 4 },
      { _tag: "Loop", times: TRIPS_EACH, body: [{ _tag: "PortIn", port: portOf(i + 1), size: 1 }] }
    ])
  ]))

/** A third of the clients each: at once, after a turn of guest time's scheduler, after guest time. */
const answers: ReadonlyArray<Effect.Effect<IoValue>> = [
  Effect.sync(() => 1),
  Effect.as(Effect.yieldNow, 1),
  Effect.as(Effect.sleep("1 micros"), 1)
]

export const countSteps = (isStuck: boolean): Promise<Steps> => {
  const count = { pageAccesses: 0, hostTasks: 0 }
  const countedMemory = Layer.effect(
    ServiceMemory,
    Effect.map(ServiceMemory, (memory) => {
      const page: typeof memory.page = (address) =>
        Result.map(memory.page(address), (each) => countedPage(each, () => count.pageAccesses++))
      return ServiceMemory.of({ ...memory, page })
    })
  )
  return Effect.gen(function*() {
    const machines = yield* VirtualMachine.VirtualMachine
    const { plan, vcpus } = programs(isStuck)
    const vm = yield* machines.create({ memoryBytes: plan.memoryBytes, vcpus: MAX_VCPUS })
    yield* vm.load(plan)
    for (const [vcpu, { registers }] of vcpus.entries()) yield* vm.setRegisters(vcpu, registers)

    const gate = yield* Deferred.make<number>()
    const allWait = yield* Deferred.make<void>()
    const allDone = yield* Deferred.make<void>()
    let waiting = 0
    const wait = (until: Effect.Effect<IoValue>): Effect.Effect<IoValue> => {
      waiting++
      if (waiting === OTHERS + (isStuck ? 1 : 0)) Deferred.doneUnsafe(allWait, Exit.void)
      return until
    }
    const register = (name: string, port: number, handle: () => Effect.Effect<IoValue>) =>
      vm.io.register({ name, ranges: [IoRange.ports(port, port + 3)], handle })
    yield* register("stuck", STUCK_PORT, () => wait(Effect.never))
    yield* register("gate", GATE_PORT, () => wait(Deferred.await(gate)))
    for (let i = 1; i <= OTHERS; i++) yield* register(`client ${i}`, portOf(i), () => answers[i % answers.length]!)

    const instructions = () => Number(vm.machine.time.clock.monotonicTimeNanosUnsafe()) / NANOS_PER_INSTRUCTION
    const trips = OTHERS * TRIPS_EACH
    let left = trips
    let end: Steps | undefined
    yield* vm.io.observe({
      onComplete: (client) => {
        if (!client.startsWith("client") || --left > 0) return
        end = { ...count, trips, instructions: instructions() }
        Deferred.doneUnsafe(allDone, Exit.void)
      }
    })

    yield* vm.start
    yield* Deferred.await(allWait)
    // Until the halted vCPU halted, too, and nothing is left to do.
    for (let turn = 0; turn < 10; turn++) yield* Effect.yieldNow
    const begin = { ...count, instructions: instructions() }
    yield* Deferred.succeed(gate, 0)
    yield* Deferred.await(allDone)
    return {
      trips,
      pageAccesses: end!.pageAccesses - begin.pageAccesses,
      hostTasks: end!.hostTasks - begin.hostTasks,
      instructions: end!.instructions - begin.instructions
    }
  }).pipe(
    Effect.scoped,
    Effect.provide(VirtualMachine.layer),
    Effect.provide(countedMemory),
    Effect.provide(Simulated.layer),
    Effect.provideService(
      Scheduler.Scheduler,
      countedScheduler(new Scheduler.MixedScheduler(), () => count.hostTasks++)
    ),
    Effect.runPromise
  )
}

const stepsOfTrip = ({ hostTasks, instructions, pageAccesses, trips }: Steps): number =>
  (pageAccesses + hostTasks + instructions) / trips

export const figure: Figure = {
  metric: "dispatch.stuck_client_steps",
  unit: "steps a trip",
  aim: { of: "ratio", atMost: 1 },
  run: async () => {
    const stuck = await countSteps(true)
    const halted = await countSteps(false)
    return {
      value: stepsOfTrip(stuck),
      peer: { name: "nobody is stuck", value: stepsOfTrip(halted) },
      samples: [stepsOfTrip(stuck)],
      details: { steps: { stuck, halted } }
    }
  }
}
