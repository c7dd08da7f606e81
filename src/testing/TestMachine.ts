/**
 * A VM whose guest is the test: device models see a real `Machine` with the real page and dispatcher below, the test
 * makes the accesses, moves guest time by hand, and looks at what the devices did to the interrupt lines.
 *
 * Nothing depends on the time of the host, and no vCPU has to be programmed to reach a register.
 *
 * **Example** (Testing a timer that interrupts)
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as IoRange from "upcall/domain/IoRange"
 * import { IrqLines } from "upcall/services/Hypervisor"
 * import { Machine } from "upcall/services/Machine"
 * import * as TestMachine from "upcall/testing/TestMachine"
 *
 * // A device: any write to port 0x70 raises line 5 a millisecond later.
 * const alarm = Effect.gen(function*() {
 *   const machine = yield* Machine
 *   const lines = yield* IrqLines
 *   yield* machine.io.register({
 *     name: "alarm",
 *     ranges: [IoRange.ports(0x70, 0x70)],
 *     handle: () =>
 *       machine.fork(Effect.andThen(
 *         Effect.sleep("1 millis"),
 *         Effect.sync(() => lines.set(machine.vmId, 5, true))
 *       )).pipe(Effect.asVoid)
 *   })
 * })
 *
 * const program = Effect.gen(function*() {
 *   const guest = yield* TestMachine.make()
 *   yield* guest.attach(alarm)
 *   yield* guest.portWrite(0x70, 1, 0)
 *   yield* guest.advance("999 micros")
 *   console.log(yield* guest.isHigh(5))
 *   // => false
 *   yield* guest.advance("1 micros")
 *   console.log(yield* guest.lineChanges)
 *   // => [ { line: 5, high: true, at: 1000000 } ]
 * })
 * await Effect.runPromise(Effect.scoped(program))
 * ```
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Scheduler from "effect/Scheduler"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { type GuestAddress, hex, type Port, type VcpuId } from "../domain/Address.ts"
import type { EndReason } from "../domain/EndReason.ts"
import type { HypervisorProfile } from "../domain/HypervisorProfile.ts"
import { IoRequest } from "../domain/IoRequest.ts"
import { MAX_VCPUS } from "../domain/Limits.ts"
import { HypervisorModel } from "../layers/model/HypervisorModel.ts"
import { DEFAULT_EPOCH_MS, provide } from "../layers/model/provide.ts"
import { AddressSpace, localBacking, makeServiceMemory } from "../services/AddressSpace.ts"
import { IrqLines } from "../services/Hypervisor.ts"
import type { Machine } from "../services/Machine.ts"
import * as Upcalls from "../services/Upcalls.ts"
import type { VirtualMachineError } from "../services/VirtualMachineError.ts"
import type { RunningVm, Vm } from "../services/Vm.ts"
import { makeCreate } from "../services/vm/create.ts"
import { type Answer, HandDriven, type LineChange } from "./machine/HandDriven.ts"

export type { Answer, LineChange } from "./machine/HandDriven.ts"

/**
 * - `Busy`: the vCPU waits for its last access still; it makes one at a time.
 * - `NoSuchVcpu`: the machine has fewer vCPUs.
 * - `BadRequest`: no guest can make such an access; no device saw it.
 * - `Dropped`: the VM was reset while the access waited, so that it will never be answered.
 *
 * @category errors
 * @since 0.1.0
 */
export const TestMachineErrorReason = Schema.TaggedUnion({
  Busy: { vcpu: Schema.Number },
  NoSuchVcpu: { vcpu: Schema.Number, vcpus: Schema.Number },
  BadRequest: { problem: Schema.String },
  Dropped: { vcpu: Schema.Number }
})

/**
 * @category errors
 * @since 0.1.0
 */
export type TestMachineErrorReason = typeof TestMachineErrorReason.Type

/**
 * An access that was not made, or will not be answered.
 *
 * @category errors
 * @since 0.1.0
 */
export class TestMachineError extends Schema.TaggedError<TestMachineError>()("TestMachineError", {
  reason: TestMachineErrorReason
}) {
  override get message(): string {
    const { reason } = this
    switch (reason._tag) {
      case "Busy":
        return `vCPU ${reason.vcpu} waits for its last access still; wait for that, or let another vCPU make this one`
      case "NoSuchVcpu":
        return `there is no vCPU ${reason.vcpu}: the machine has ${reason.vcpus}, counted from 0`
      case "BadRequest":
        return `no guest can make this access: ${reason.problem}`
      case "Dropped":
        return `the VM was reset while vCPU ${reason.vcpu} waited; make the access again`
    }
  }
}

/**
 * `vcpus`: 1 to 16, default 1. `memoryBytes`: RAM from guest address 0, default 64 KiB. `epochMs`: wall-clock time at
 * guest time 0, in milliseconds since 1970, default 2026-01-01T00:00:00Z.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  readonly name?: string
  readonly vcpus?: number
  readonly memoryBytes?: number
  readonly epochMs?: number
}

/**
 * A machine and the hands of its guest. An access that its device does not answer at once waits; it goes on as guest
 * time is moved, or as the program lets the device go on. `vcpu` is 0 where it is not given.
 *
 * @category models
 * @since 0.1.0
 */
export interface TestMachine {
  readonly vm: Vm
  readonly machine: Machine["Service"]
  /** Puts a device in; its interrupt lines are the machine's. */
  readonly attach: <A, E, R>(
    device: Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E, Exclude<R, Machine | Scope.Scope | IrqLines>>
  /** Makes an access and waits for its answer. An interrupted wait leaves the vCPU busy until the device answers. */
  readonly submit: (request: IoRequest) => Effect.Effect<Answer, TestMachineError>
  readonly portRead: (port: number, size: 1 | 2 | 4, vcpu?: number) => Effect.Effect<number, TestMachineError>
  readonly portWrite: (
    port: number,
    size: 1 | 2 | 4,
    value: number,
    vcpu?: number
  ) => Effect.Effect<void, TestMachineError>
  readonly mmioRead: (address: number, size: 1 | 2 | 4 | 8, vcpu?: number) => Effect.Effect<bigint, TestMachineError>
  readonly mmioWrite: (
    address: number,
    size: 1 | 2 | 4 | 8,
    value: bigint,
    vcpu?: number
  ) => Effect.Effect<void, TestMachineError>
  /** Guest time in nanoseconds since the machine was made. */
  readonly now: Effect.Effect<number>
  /** Moves guest time on by a finite duration; every timer on the way fires at its own time, and what it wakes runs before the next one. */
  readonly advance: (by: Duration.Input) => Effect.Effect<void>
  /** Whether a line is high now. */
  readonly isHigh: (line: number) => Effect.Effect<boolean>
  /** Every change of a line since the machine was made, or since {@link takeLineChanges}. */
  readonly lineChanges: Effect.Effect<ReadonlyArray<LineChange>>
  /** The changes since the last call. */
  readonly takeLineChanges: Effect.Effect<ReadonlyArray<LineChange>>
  /**
   * Pauses, resets and starts the VM: devices begin anew, and an access that no device took yet fails with `Dropped`.
   * Fails, and nothing is reset, while a device holds an access.
   */
  readonly reset: Effect.Effect<void, VirtualMachineError>
  /** Waits until a device says that the guest is done. */
  readonly ended: Effect.Effect<EndReason>
}

/**
 * What {@link make} can do: everything that the ABI can say.
 *
 * @category constants
 * @since 0.1.0
 */
export const profile: HypervisorProfile = {
  name: "test machine",
  maxVcpus: MAX_VCPUS,
  maxRamBytes: 2 ** 30,
  addressBits: 52,
  portWidths: [1, 2, 4],
  mmioWidths: [1, 2, 4, 8],
  mapping: "Pages",
  modes: ["Real", "Protected32", "Long64"],
  startsAllVcpus: true
}

const decodeRequest = Schema.decodeUnknownResult(IoRequest)

/** What no slot could say, or would say as something else. */
const problemWith = (request: IoRequest): string | undefined => {
  const decoded = decodeRequest(request)
  if (Result.isFailure(decoded)) return decoded.failure.message
  if (!("value" in request) || BigInt(request.value) >> BigInt(8 * request.size) === 0n) return undefined
  return `the value ${hex(request.value)} has more than ${request.size} bytes`
}

const fail = (reason: TestMachineErrorReason) => Effect.fail(new TestMachineError({ reason }))

/**
 * Makes a machine that lives until the scope closes. Fails as `VirtualMachine.create` does, on options out of range.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (
  options: Options = {}
): Effect.Effect<TestMachine, VirtualMachineError, Scope.Scope> =>
  Effect.gen(function*() {
    const { epochMs = DEFAULT_EPOCH_MS, memoryBytes = 0x1_0000, name = "test", vcpus = 1 } = options
    const scheduler = yield* Scheduler.Scheduler
    const memory = makeServiceMemory(new AddressSpace(), (bytes) => Result.succeed(localBacking(bytes)))
    const upcalls = Upcalls.make()
    let made: HandDriven | undefined
    const model = new HypervisorModel({
      profile,
      memory,
      maxVms: 1,
      configuredVcpus: 1,
      makeEngine: (engineOptions) => made = new HandDriven(engineOptions, epochMs, scheduler, upcalls.raise)
    })
    const hypervisor = provide(profile, memory, upcalls.service, model)
    // A scope before the VM's, so that it closes after the VM was destroyed.
    const below = yield* Scope.fork(yield* Effect.scope)
    const create = yield* Effect.provideContext(makeCreate, Context.add(hypervisor, Scope.Scope, below))
    const created = yield* create({ name, vcpus, memoryBytes })
    // A VM that was created has its vCPUs.
    const guest = made!
    const lines = Context.get(hypervisor, IrqLines)
    let running: RunningVm = yield* created.start

    const submit = (request: IoRequest): Effect.Effect<Answer, TestMachineError> => {
      const { vcpu } = request
      if (!Number.isInteger(vcpu) || vcpu < 0 || vcpu >= guest.vcpus) {
        return fail({ _tag: "NoSuchVcpu", vcpu, vcpus: guest.vcpus })
      }
      const illegal = problemWith(request)
      if (illegal !== undefined) return fail({ _tag: "BadRequest", problem: illegal })
      return Effect.callback<Answer, TestMachineError>((resume) => {
        if (guest.isWaiting(vcpu)) return resume(fail({ _tag: "Busy", vcpu }))
        const problem = guest.submit({
          request,
          onAnswer: (answer) => resume(Effect.succeed(answer)),
          onReset: () => resume(fail({ _tag: "Dropped", vcpu }))
        })
        if (problem !== undefined) resume(fail({ _tag: "BadRequest", problem }))
      })
    }

    return {
      vm: created,
      machine: created.machine,
      attach: <A, E, R>(device: Effect.Effect<A, E, R>) =>
        created.attach(Effect.provideService(device, IrqLines, lines)) as Effect.Effect<
          A,
          E,
          Exclude<R, Machine | Scope.Scope | IrqLines>
        >,
      submit,
      portRead: (port, size, vcpu = 0) =>
        Effect.map(submit({ _tag: "PortRead", vcpu: vcpu as VcpuId, port: port as Port, size }), Number),
      portWrite: (port, size, value, vcpu = 0) =>
        Effect.asVoid(submit({ _tag: "PortWrite", vcpu: vcpu as VcpuId, port: port as Port, size, value })),
      mmioRead: (address, size, vcpu = 0) =>
        Effect.map(
          submit({ _tag: "MmioRead", vcpu: vcpu as VcpuId, address: address as GuestAddress, size }),
          (answer) => BigInt(answer ?? 0)
        ),
      mmioWrite: (address, size, value, vcpu = 0) =>
        Effect.asVoid(
          submit({ _tag: "MmioWrite", vcpu: vcpu as VcpuId, address: address as GuestAddress, size, value })
        ),
      now: Effect.sync(() => guest.time.now),
      advance: (by) =>
        Effect.sync(() => {
          const target = guest.time.now + Number(Duration.toNanosUnsafe(Duration.fromInputUnsafe(by)))
          // One step fires so many timers at most.
          while (guest.time.now < target) guest.time.advanceTo(target)
        }),
      isHigh: (line) => Effect.sync(() => guest.isHigh(line)),
      lineChanges: Effect.sync(() => [...guest.lineChanges]),
      takeLineChanges: Effect.sync(() => guest.lineChanges.splice(0)),
      reset: Effect.gen(function*() {
        const paused = yield* running.pause
        const again = yield* paused.reset
        running = yield* again.start
      }),
      ended: Effect.suspend(() => running.ended)
    }
  })
