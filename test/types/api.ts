/**
 * What must not compile, each beside a twin that must. The type check of the project is the first half of the test: a line
 * below a `@ts-expect-error` that compiles fails it. api.test.ts is the second: it is the error that the comment names, on
 * that line, and not another one.
 */
import { type Context, Effect, Layer, type Scope, Stream } from "effect"
import type { GuestAddress, Port, ServiceAddress, VcpuId } from "../../src/domain/Address.ts"
import type { EndReason } from "../../src/domain/EndReason.ts"
import * as IoRange from "../../src/domain/IoRange.ts"
import type { IoRequest } from "../../src/domain/IoRequest.ts"
import * as Pit8254 from "../../src/layers/devices/Pit8254.ts"
import type * as Kvm from "../../src/layers/Kvm.ts"
import * as Simulated from "../../src/layers/Simulated.ts"
import type { CapabilityError, Hypervisor, IrqLines } from "../../src/services/Hypervisor.ts"
import type { IoClient, IoDispatcher, IoDispatcherError } from "../../src/services/IoDispatcher.ts"
import type { IoRequestBufferError, PendingSlot, Slot } from "../../src/services/IoRequestBuffer.ts"
import { Machine } from "../../src/services/Machine.ts"
import * as VirtualMachine from "../../src/services/VirtualMachine.ts"
import type { VirtualMachineError } from "../../src/services/VirtualMachineError.ts"
import type { CreatedVm, PausedVm, RunningVm } from "../../src/services/Vm.ts"
import * as TestMachine from "../../src/testing/TestMachine.ts"

// States of a VM: a handle has the commands that its state accepts, and no others.

export const vmStates = (created: CreatedVm, running: RunningVm, paused: PausedVm): ReadonlyArray<unknown> => [
  created.start,
  created.pause,
  running.pause,
  running.ended,
  paused.reset,
  paused.resume,
  paused.setRegisters,
  // @ts-expect-error 'reset': ACRN resets a paused VM only.
  created.reset,
  // @ts-expect-error 'resume': a VM that did not run has nothing to resume.
  created.resume,
  // @ts-expect-error 'ended': a VM that did not start has no end.
  created.ended,
  // @ts-expect-error 'start': it runs already.
  running.start,
  // @ts-expect-error 'reset': a running VM is paused first.
  running.reset,
  // @ts-expect-error 'setRegisters': registers are set while no vCPU runs.
  running.setRegisters,
  // @ts-expect-error 'load': an image is loaded while no vCPU runs.
  running.load,
  // @ts-expect-error 'mapMemory': the memory map changes while no vCPU runs.
  running.mapMemory,
  // @ts-expect-error 'start': a paused VM is resumed or reset, START is for a created one.
  paused.start,
  // @ts-expect-error 'destroy': no hypervisor needs to be asked to destroy a VM; its scope does.
  paused.destroy
]

// States of a slot: claimed from Pending, completed from Processing, the hypervisor's from Complete on.

export const slotStates = (
  pending: PendingSlot,
  processing: Slot<"Processing">,
  complete: Slot<"Complete">
): ReadonlyArray<unknown> => [
  pending.claim,
  pending.answer(0),
  processing.complete(0),
  // @ts-expect-error 'complete': what nobody claimed cannot be completed.
  pending.complete(0),
  // @ts-expect-error 'claim': a request is claimed once.
  processing.claim,
  // @ts-expect-error 'answer': a claimed request is completed, not answered past its claim.
  processing.answer(0),
  // @ts-expect-error 'complete': the slot is the hypervisor's again.
  complete.complete(0),
  // @ts-expect-error 'claim': nor is there anything to claim.
  complete.claim
]

// Capabilities: what a program needs of its hypervisor is in its type.

declare const bareHypervisor: Layer.Layer<Hypervisor>

/** A device that interrupts. */
const withTimer = Effect.scoped(Effect.gen(function*() {
  const machines = yield* VirtualMachine.VirtualMachine
  const vm = yield* machines.create({ memoryBytes: 4096 })
  yield* vm.attach(Pit8254.make())
}))
export const onSimulated: Effect.Effect<void, unknown> = withTimer.pipe(
  Effect.provide(VirtualMachine.layer.pipe(Layer.provideMerge(Simulated.layer)))
)
// @ts-expect-error 'IrqLines': a device that interrupts, on a hypervisor without interrupt lines.
export const onBare: Effect.Effect<void, unknown> = withTimer.pipe(
  Effect.provide(VirtualMachine.layer.pipe(Layer.provideMerge(bareHypervisor)))
)

/** Running a paused VM on, which ACRN cannot. */
const resuming = (paused: PausedVm) => Effect.asVoid(paused.resume)
export const resumedWith = (paused: PausedVm, has: Context.Context<Simulated.Capabilities>): Effect.Effect<
  void,
  VirtualMachineError
> => Effect.provideContext(resuming(paused), has)
// @ts-expect-error 'Resume': resuming on a hypervisor that cannot.
export const resumedWithout = (paused: PausedVm): Effect.Effect<void, VirtualMachineError> => resuming(paused)

/** Reading a vCPU's registers. */
const reading = (paused: PausedVm) => Effect.asVoid(paused.registers(0))
export const readWith = (paused: PausedVm, has: Context.Context<Simulated.Capabilities>): Effect.Effect<
  void,
  VirtualMachineError
> => Effect.provideContext(reading(paused), has)
// @ts-expect-error 'VcpuState': reading registers on a hypervisor that does not show them.
export const readWithout = (paused: PausedVm): Effect.Effect<void, VirtualMachineError> => reading(paused)

/** Hearing a doorbell. */
const ringing = (client: IoClient) =>
  Effect.asVoid(Stream.runDrain(client.doorbell({ space: "Port", address: 0x3f8, bytes: 1 })))
type Rung = Effect.Effect<void, CapabilityError | IoDispatcherError>
type Has<Capabilities> = Context.Context<Capabilities>
export const rungOnKvm = (client: IoClient, has: Has<Kvm.Capabilities>): Rung =>
  Effect.provideContext(ringing(client), has)
export const rungOnSimulated = (client: IoClient, has: Has<Simulated.Capabilities>): Rung =>
  // @ts-expect-error 'Doorbells': a doorbell on a hypervisor without any.
  Effect.provideContext(ringing(client), has)

/** A VM, which needs a hypervisor below. */
const creating = Effect.scoped(
  Effect.flatMap(VirtualMachine.VirtualMachine, ({ create }) => Effect.asVoid(create({ memoryBytes: 4096 })))
)
export const createdOnSimulated: Effect.Effect<void, VirtualMachineError> = creating.pipe(
  Effect.provide(VirtualMachine.layer),
  Effect.provide(Simulated.layer)
)
// @ts-expect-error 'HypercallGate': a VM without a hypervisor.
export const createdOnNothing: Effect.Effect<void, VirtualMachineError> = creating.pipe(
  Effect.provide(VirtualMachine.layer)
)

// Scopes: what is acquired belongs to somebody.

type Io = IoDispatcher["Service"]
type Machines = VirtualMachine.VirtualMachine["Service"]
type Registered<R = never> = Effect.Effect<void, IoDispatcherError, R>
type Created<R = never> = Effect.Effect<CreatedVm, VirtualMachineError, R>

const client = { name: "client", ranges: [IoRange.ports(0x100, 0x107)], handle: () => Effect.succeed(1) }
const register = (io: Io) => Effect.asVoid(io.register(client))
export const registeredInScope = (io: Io): Registered<Scope.Scope> => register(io)
export const registeredForAWhile = (io: Io): Registered => Effect.scoped(register(io))
// @ts-expect-error 'Scope': a client that nobody takes back.
export const registeredForEver = (io: Io): Registered => register(io)
export const createdInScope = (machines: Machines): Created<Scope.Scope> => machines.create({ memoryBytes: 4096 })
// @ts-expect-error 'Scope': a VM that nobody destroys.
export const createdForEver = (machines: Machines): Created => machines.create({ memoryBytes: 4096 })

// Requirements of handlers and devices are those of whoever registers and attaches them.

declare const lines: Effect.Effect<number, never, IrqLines>
const registerInterrupting = (io: Io) => Effect.asVoid(io.register({ ...client, handle: () => lines }))
export const handlerWithLines = (io: Io): Registered<Scope.Scope | IrqLines> => registerInterrupting(io)
// @ts-expect-error 'IrqLines': a handler whose requirement nobody provides.
export const handlerWithoutLines = (io: Io): Registered<Scope.Scope> => registerInterrupting(io)

const device = Effect.flatMap(Machine, ({ io }) => Effect.asVoid(io.register(client)))
export const attached: Effect.Effect<void, unknown> = Effect.scoped(
  Effect.flatMap(TestMachine.make(), (machine) => machine.attach(device))
)
// @ts-expect-error 'Machine': a device outside of any machine.
export const loose: Effect.Effect<void, unknown> = Effect.scoped(device)

// Answers and requests.

export const answers = (io: Io): ReadonlyArray<unknown> => [
  io.register({ ...client, handle: () => Effect.succeed(0x55n) }),
  io.register({ ...client, handle: () => Effect.void }),
  // @ts-expect-error 'string': an answer is a number, a bigint, or nothing.
  io.register({ ...client, handle: () => Effect.succeed("0x55") }),
  // @ts-expect-error 'number': a handler is an Effect.
  io.register({ ...client, handle: () => 0x55 })
]

export const valueOf = (request: IoRequest): number | bigint => {
  switch (request._tag) {
    case "PortWrite":
      return request.value
    case "PortRead":
      // @ts-expect-error 'value': a read has no value yet.
      return request.value
    default:
      return 0
  }
}

// Brands: addresses of different spaces are different things.

declare const port: Port
declare const vcpu: VcpuId
declare const guest: GuestAddress
declare const service: ServiceAddress

export const samePort: Port = port
export const sameGuest: GuestAddress = guest
// @ts-expect-error 'GuestAddress': a port is not a guest address.
export const portAsAddress: GuestAddress = port
// @ts-expect-error 'Port': nor is a guest address a port.
export const addressAsPort: Port = guest
// @ts-expect-error 'GuestAddress': a service address is not a guest address.
export const serviceAsGuest: GuestAddress = service
// @ts-expect-error 'number': nor is any number.
export const unchecked: GuestAddress = 4096

export const request: IoRequest = { _tag: "MmioRead", vcpu, address: guest, size: 8 }
// @ts-expect-error 'GuestAddress': a request in memory at a port.
export const misplaced: IoRequest = { _tag: "MmioRead", vcpu, address: port, size: 8 }
// @ts-expect-error '8': ports are 1, 2 or 4 bytes wide.
export const tooWide: IoRequest = { _tag: "PortRead", vcpu, port, size: 8 }

// Errors are part of the type until they are handled.

export const handled = (slot: PendingSlot): Effect.Effect<Slot<"Processing"> | undefined> =>
  Effect.catch(slot.claim, () => Effect.succeed(undefined))
export const admitted = (slot: PendingSlot): Effect.Effect<Slot<"Processing">, IoRequestBufferError> => slot.claim
// @ts-expect-error 'IoRequestBufferError': a claim can be refused.
export const assumed = (slot: PendingSlot): Effect.Effect<Slot<"Processing">> => slot.claim
// @ts-expect-error 'VirtualMachineError': a start can be refused.
export const started = (vm: CreatedVm): Effect.Effect<RunningVm> => vm.start

export const status = (reason: EndReason): number => {
  switch (reason._tag) {
    case "Exited":
      return reason.status
    default:
      // @ts-expect-error 'status': only an exit has a status.
      return reason.status
  }
}

export const reasonOf = (error: IoDispatcherError): string => {
  const { reason } = error
  // @ts-expect-error 'owner': only some refusals have an owner.
  if (reason.owner === undefined) return ""
  return reason._tag === "Overlap" ? reason.owner : ""
}
