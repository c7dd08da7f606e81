/**
 * The hypercalls as typed methods: structures are laid out, written to Service VM memory, passed through the gate, and
 * a refusal comes back as an error that names the call, the raw result, and when ACRN accepts it.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { MemoryRegionBatch, MemoryRegionOp } from "../domain/abi/MemoryRegionBatch.ts"
import type { Regs } from "../domain/abi/VcpuRegs.ts"
import { VmCreation } from "../domain/abi/VmCreation.ts"
import { VmId } from "../domain/Address.ts"
import { describeResult } from "../domain/Errno.ts"
import * as Hypercall from "../domain/Hypercall.ts"
import { INVALID_VM_ID, MAX_MEMORY_REGIONS, PAGE_BYTES } from "../domain/Limits.ts"
import { HypercallGate } from "./HypercallGate.ts"
import { ServiceMemory } from "./ServiceMemory.ts"

/**
 * - `Refused`: the hypervisor's result was negative; `acceptedWhen` says what it asks for.
 * - `NoVm`: CREATE_VM returned 0 but no VM id, which is how ACRN reports that it has no room.
 * - `Unencodable`: a value does not fit the ABI's field; nothing was sent.
 * - `NoScratch`: there was no Service VM memory for the structures; nothing was sent.
 *
 * @category errors
 * @since 0.1.0
 */
export const HypercallErrorReason = Schema.TaggedUnion({
  Refused: { hypercall: Schema.String, vmId: Schema.Number, result: Schema.Number, acceptedWhen: Schema.String },
  NoVm: {},
  Unencodable: { hypercall: Schema.String, problem: Schema.String },
  NoScratch: { hypercall: Schema.String, problem: Schema.String }
})

/**
 * @category errors
 * @since 0.1.0
 */
export type HypercallErrorReason = typeof HypercallErrorReason.Type

/**
 * A hypercall that was refused, or could not be made.
 *
 * @category errors
 * @since 0.1.0
 */
export class HypercallError
  extends Schema.TaggedError<HypercallError>()("HypercallError", { reason: HypercallErrorReason })
{
  override get message(): string {
    const reason = this.reason
    switch (reason._tag) {
      case "Refused":
        return `${reason.hypercall} on VM ${reason.vmId} was refused with ${describeResult(reason.result)}; ` +
          `the hypervisor accepts it when ${reason.acceptedWhen}`
      case "NoVm":
        return "CREATE_VM returned no VM id: the hypervisor has no room for another VM; destroy one first"
      case "Unencodable":
        return `${reason.hypercall} was not sent: ${reason.problem}`
      case "NoScratch":
        return `${reason.hypercall} was not sent: ${reason.problem}`
    }
  }
}

const names: Readonly<Record<Hypercall.Hypercall["_tag"], readonly [name: string, acceptedWhen: string]>> = {
  CreateVm: ["CREATE_VM", "a VM slot is free and the structure is valid"],
  DestroyVm: ["DESTROY_VM", "the VM is Paused"],
  StartVm: ["START_VM", "the VM is Created and its I/O request page is set"],
  PauseVm: ["PAUSE_VM", "the VM exists"],
  ResetVm: ["RESET_VM", "the VM is Paused"],
  SetVcpuRegs: ["SET_VCPU_REGS", "the VM is not Running, the vCPU exists, and CR0 and CR4 are legal"],
  SetIoRequestBuffer: ["SET_IOREQ_BUFFER", "the VM is Created and the page is Service VM memory"],
  NotifyRequestFinish: ["NOTIFY_REQUEST_FINISH", "the VM has an I/O request page and the vCPU exists"],
  SetMemoryRegions: [
    "VM_SET_MEMORY_REGIONS",
    "the VM exists, the batch is not empty, and every size is a multiple of 0x1000 inside the Service VM's memory"
  ],
  SetIrqLine: ["SET_IRQLINE", "the VM exists and has that line"]
}

/**
 * The typed hypercalls of one hypervisor.
 *
 * @category services
 * @since 0.1.0
 */
export class Hypercalls extends Context.Service<Hypercalls, {
  /** Creates a VM with one vCPU per bit of `cpuAffinity`. */
  readonly createVm: (
    options: { readonly cpuAffinity: bigint; readonly flags?: bigint; readonly uuid?: Uint8Array }
  ) => Effect.Effect<{ readonly vmId: VmId; readonly vcpus: number }, HypercallError>
  /** Destroys a Paused VM. */
  readonly destroyVm: (vmId: number) => Effect.Effect<void, HypercallError>
  /** Starts a Created VM whose I/O request page is set. */
  readonly startVm: (vmId: number) => Effect.Effect<void, HypercallError>
  /** Stops a VM's vCPUs, in any state of the VM. */
  readonly pauseVm: (vmId: number) => Effect.Effect<void, HypercallError>
  /** Makes a Paused VM Created again; the hypervisor frees all 16 slots and keeps the page. */
  readonly resetVm: (vmId: number) => Effect.Effect<void, HypercallError>
  /** Sets what a vCPU starts with, while the VM does not run. `registers` is the ABI's own structure. */
  readonly setVcpuRegs: (vmId: number, vcpuId: number, registers: Regs) => Effect.Effect<void, HypercallError>
  /** Names the page (by service address) where the VM's requests will appear; the hypervisor frees all 16 slots. */
  readonly setIoRequestBuffer: (vmId: number, page: number) => Effect.Effect<void, HypercallError>
  /** Tells the hypervisor that the request of this vCPU is Complete. */
  readonly notifyRequestFinish: (vmId: number, vcpuId: number) => Effect.Effect<void, HypercallError>
  /** Applies 1 to 256 operations in order; those before a refused one stay. */
  readonly setMemoryRegions: (
    vmId: number,
    operations: ReadonlyArray<MemoryRegionOp>
  ) => Effect.Effect<void, HypercallError>
  /** Drives interrupt line `gsi`; `op` is an `IrqLineOpCode` of `upcall/domain/abi/IrqLineWord`. */
  readonly setIrqLine: (vmId: number, gsi: number, op: number) => Effect.Effect<void, HypercallError>
}>()("upcall/services/Hypercalls") {}

// The largest call is a full batch; every other structure is smaller than a page.
const SCRATCH_BYTES = Math.ceil((MemoryRegionBatch.size + MAX_MEMORY_REGIONS * MemoryRegionOp.size) / PAGE_BYTES) *
  PAGE_BYTES

/**
 * Builds the typed hypercalls. They share scratch memory that grows with the number of calls under way at once and is
 * released with the scope.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: Effect.Effect<
  Hypercalls["Service"],
  never,
  HypercallGate | ServiceMemory | Scope.Scope
> = Effect.gen(function*() {
  const gate = yield* HypercallGate
  const memory = yield* ServiceMemory
  // Of its own: a VM in the same scope still needs scratch memory for its DESTROY_VM.
  const scope = yield* Scope.fork(yield* Effect.scope)
  const free: Array<number> = []

  const acquireScratch = (name: string) =>
    Effect.suspend(() => {
      const address = free.pop()
      if (address !== undefined) return Effect.succeed(address)
      return memory.allocate({ bytes: SCRATCH_BYTES, purpose: { _tag: "HypercallStructures" } }).pipe(
        Effect.provideService(Scope.Scope, scope),
        Effect.map((region): number => region.address),
        Effect.mapError((error) =>
          new HypercallError({ reason: { _tag: "NoScratch", hypercall: name, problem: error.message } })
        )
      )
    })

  const perform = <A>(hypercall: Hypercall.Hypercall, vmId: number, onSuccess: (scratch: number) => A) => {
    const [name, acceptedWhen] = names[hypercall._tag]
    return Effect.acquireUseRelease(
      acquireScratch(name),
      (scratch) =>
        Effect.suspend(() => {
          const encoded = Result.flatMap(
            Hypercall.encode(hypercall, scratch),
            (call) => Result.map(memory.write(scratch, call.structures), () => call)
          )
          if (Result.isFailure(encoded)) {
            return Effect.fail(
              new HypercallError({
                reason: { _tag: "Unencodable", hypercall: name, problem: encoded.failure.message }
              })
            )
          }
          const { id, param1, param2 } = encoded.success
          return Effect.flatMap(gate.call(id, param1, param2), (result) =>
            result < 0
              ? Effect.fail(
                new HypercallError({ reason: { _tag: "Refused", hypercall: name, vmId, result, acceptedWhen } })
              )
              : Effect.sync(() => onSuccess(scratch)))
        }),
      (scratch) => Effect.sync(() => free.push(scratch))
    )
  }
  const nothing = () => undefined

  return Hypercalls.of({
    createVm: ({ cpuAffinity, flags = 0n, uuid = new Uint8Array(16) }) =>
      perform(
        {
          _tag: "CreateVm",
          creation: { vmid: INVALID_VM_ID, vcpuNum: 0, uuid, vmFlag: flags, ioreqBuf: 0n, cpuAffinity }
        },
        INVALID_VM_ID,
        (scratch) => {
          const filled = new Uint8Array(VmCreation.size)
          return Result.flatMap(memory.read(scratch, filled), () => VmCreation.decode(filled))
        }
      ).pipe(
        Effect.flatMap((filled) =>
          Result.isSuccess(filled) && filled.success.vmid !== INVALID_VM_ID
            ? Effect.succeed({ vmId: VmId.make(filled.success.vmid), vcpus: filled.success.vcpuNum })
            : Effect.fail(new HypercallError({ reason: { _tag: "NoVm" } }))
        )
      ),
    destroyVm: (vmId) => perform({ _tag: "DestroyVm", vmId }, vmId, nothing),
    startVm: (vmId) => perform({ _tag: "StartVm", vmId }, vmId, nothing),
    pauseVm: (vmId) => perform({ _tag: "PauseVm", vmId }, vmId, nothing),
    resetVm: (vmId) => perform({ _tag: "ResetVm", vmId }, vmId, nothing),
    setVcpuRegs: (vmId, vcpuId, registers) => perform({ _tag: "SetVcpuRegs", vmId, vcpuId, registers }, vmId, nothing),
    setIoRequestBuffer: (vmId, page) =>
      perform({ _tag: "SetIoRequestBuffer", vmId, page: BigInt(page) }, vmId, nothing),
    notifyRequestFinish: (vmId, vcpuId) => perform({ _tag: "NotifyRequestFinish", vmId, vcpuId }, vmId, nothing),
    setMemoryRegions: (vmId, operations) =>
      operations.length > MAX_MEMORY_REGIONS
        ? Effect.fail(
          new HypercallError({
            reason: {
              _tag: "Unencodable",
              hypercall: names.SetMemoryRegions[0],
              problem: `${operations.length} operations are more than the ${MAX_MEMORY_REGIONS} of one batch; ` +
                "send them in several"
            }
          })
        )
        : perform({ _tag: "SetMemoryRegions", vmId, operations }, vmId, nothing),
    setIrqLine: (vmId, gsi, op) => perform({ _tag: "SetIrqLine", vmId, gsi, op }, vmId, nothing)
  })
})

/**
 * The typed hypercalls over any hypervisor layer.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<Hypercalls, never, HypercallGate | ServiceMemory> = Layer.effect(Hypercalls, make)
