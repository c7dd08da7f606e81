/**
 * Hypercalls as values, and the one place where they are turned into an id, two words and structures, and back.
 *
 * Hypervisor layers decode what came through the gate; `Hypercalls` encodes what a program asks. That
 * `decode(encode(x)) = x` is a law. Values here carry what the ABI can carry, illegal requests too: the gate decides
 * as ACRN does, the typed API above refuses earlier and explains.
 *
 * Facts: Linux `drivers/virt/acrn/hypercall.h`; ACRN `hypervisor/common/hypercall.c`.
 *
 * @since 0.1.0
 */
import * as Result from "effect/Result"
import { HypercallId } from "./abi/HypercallId.ts"
import { IoRequestBufferWord } from "./abi/IoRequestBufferWord.ts"
import * as IrqLineWord from "./abi/IrqLineWord.ts"
import { MemoryRegionBatch, MemoryRegionOp } from "./abi/MemoryRegionBatch.ts"
import { type Regs, VcpuRegs } from "./abi/VcpuRegs.ts"
import { VmCreation } from "./abi/VmCreation.ts"
import { Errno } from "./Errno.ts"

/**
 * The nine hypercalls of the HSM, and SET_IRQLINE, which devices need.
 *
 * @category models
 * @since 0.1.0
 */
export type Hypercall =
  | { readonly _tag: "CreateVm"; readonly creation: VmCreation }
  | { readonly _tag: "DestroyVm"; readonly vmId: number }
  | { readonly _tag: "StartVm"; readonly vmId: number }
  | { readonly _tag: "PauseVm"; readonly vmId: number }
  | { readonly _tag: "ResetVm"; readonly vmId: number }
  | { readonly _tag: "SetVcpuRegs"; readonly vmId: number; readonly vcpuId: number; readonly registers: Regs }
  | { readonly _tag: "SetIoRequestBuffer"; readonly vmId: number; readonly page: bigint }
  | { readonly _tag: "NotifyRequestFinish"; readonly vmId: number; readonly vcpuId: number }
  | { readonly _tag: "SetMemoryRegions"; readonly vmId: number; readonly operations: ReadonlyArray<MemoryRegionOp> }
  | { readonly _tag: "SetIrqLine"; readonly vmId: number; readonly gsi: number; readonly op: number }

/**
 * What a hypervisor answers: the result word, and for CREATE_VM what it fills into the structure.
 *
 * @category models
 * @since 0.1.0
 */
export interface HypercallOutcome {
  readonly result: number
  readonly created?: { readonly vmId: number; readonly vcpuNum: number }
}

/**
 * A hypercall as it passes the gate.
 *
 * @category models
 * @since 0.1.0
 */
export interface RawHypercall {
  readonly id: number
  readonly param1: bigint
  readonly param2: bigint
}

/**
 * Reads `bytes` bytes at a Service VM address, or tells that they are not all there.
 *
 * @category models
 * @since 0.1.0
 */
export type StructureReader = (address: bigint, bytes: number) => Uint8Array | undefined

/**
 * A raw call with the structures that must lie in Service VM memory first. The structures follow each other from the
 * `scratch` address that {@link encode} was given.
 *
 * @category models
 * @since 0.1.0
 */
export interface EncodedHypercall extends RawHypercall {
  readonly structures: Uint8Array
}

const none = new Uint8Array(0)
const vmIdOf = (word: bigint): number => Number(BigInt.asUintN(16, word))

/**
 * Turns a value into a raw call whose structures are to be written at the service address `scratch`. Fails with a
 * `LayoutError` when a value does not fit its field.
 *
 * @category codecs
 * @since 0.1.0
 */
export const encode = (hypercall: Hypercall, scratch: number) => {
  const at = BigInt(scratch)
  const plain = (id: number, param1: number, param2 = 0n): EncodedHypercall => ({
    id,
    param1: BigInt(param1),
    param2,
    structures: none
  })
  const pointed = (id: number, vmId: number) => (structures: Uint8Array): EncodedHypercall => ({
    id,
    param1: BigInt(vmId),
    param2: at,
    structures
  })
  switch (hypercall._tag) {
    case "CreateVm":
      return Result.map(
        VmCreation.encode(hypercall.creation),
        (structures): EncodedHypercall => ({ id: HypercallId.CreateVm, param1: at, param2: 0n, structures })
      )
    case "DestroyVm":
      return Result.succeed(plain(HypercallId.DestroyVm, hypercall.vmId))
    case "StartVm":
      return Result.succeed(plain(HypercallId.StartVm, hypercall.vmId))
    case "PauseVm":
      return Result.succeed(plain(HypercallId.PauseVm, hypercall.vmId))
    case "ResetVm":
      return Result.succeed(plain(HypercallId.ResetVm, hypercall.vmId))
    case "SetVcpuRegs":
      return Result.map(
        VcpuRegs.encode({ vcpuId: hypercall.vcpuId, vcpuRegs: hypercall.registers }),
        pointed(HypercallId.SetVcpuRegs, hypercall.vmId)
      )
    case "SetIoRequestBuffer":
      return Result.map(
        IoRequestBufferWord.encode({ ioreqBuf: hypercall.page }),
        pointed(HypercallId.SetIoRequestBuffer, hypercall.vmId)
      )
    case "NotifyRequestFinish":
      return Result.succeed(
        plain(HypercallId.NotifyRequestFinish, hypercall.vmId, BigInt(hypercall.vcpuId))
      )
    case "SetMemoryRegions":
      return encodeBatch(hypercall.vmId, hypercall.operations, at)
    case "SetIrqLine":
      return Result.succeed(plain(HypercallId.SetIrqLine, hypercall.vmId, IrqLineWord.toWord(hypercall)))
  }
}

const encodeBatch = (vmid: number, operations: ReadonlyArray<MemoryRegionOp>, at: bigint) =>
  Result.gen(function*() {
    const head = yield* MemoryRegionBatch.encode({
      vmid,
      regionsNum: operations.length,
      regionsGpa: at + BigInt(MemoryRegionBatch.size)
    })
    const structures = new Uint8Array(head.length + operations.length * MemoryRegionOp.size)
    structures.set(head)
    for (let i = 0; i < operations.length; i++) {
      yield* MemoryRegionOp.encodeInto(operations[i]!, structures, head.length + i * MemoryRegionOp.size)
    }
    const encoded: EncodedHypercall = { id: HypercallId.SetMemoryRegions, param1: at, param2: 0n, structures }
    return encoded
  })

/**
 * Turns a raw call back into a value. A failure is the result word to answer: -ENOTTY for an id that is none, -EPERM
 * for a structure that is not wholly in Service VM memory, as ACRN's `copy_from_gpa` failing gives. CREATE_VM and
 * VM_SET_MEMORY_REGIONS name their VM inside the structure: without it ACRN finds no VM, and answers -ENOTTY.
 *
 * `maxOperations` bounds a batch: a larger one is refused with -EINVAL before anything of it is read.
 *
 * @category codecs
 * @since 0.1.0
 */
export const decode = (
  raw: RawHypercall,
  read: StructureReader,
  maxOperations: number
): Result.Result<Hypercall, number> => {
  const vmId = vmIdOf(raw.param1)
  switch (raw.id) {
    case HypercallId.CreateVm:
      return Result.map(
        structure(VmCreation, raw.param1, read, Errno.ENOTTY),
        (creation): Hypercall => ({ _tag: "CreateVm", creation })
      )
    case HypercallId.DestroyVm:
      return Result.succeed({ _tag: "DestroyVm", vmId })
    case HypercallId.StartVm:
      return Result.succeed({ _tag: "StartVm", vmId })
    case HypercallId.PauseVm:
      return Result.succeed({ _tag: "PauseVm", vmId })
    case HypercallId.ResetVm:
      return Result.succeed({ _tag: "ResetVm", vmId })
    case HypercallId.SetVcpuRegs:
      // The one structure that ACRN does not take at address 0.
      if (raw.param2 === 0n) return Result.fail(-Errno.EPERM)
      return Result.map(
        structure(VcpuRegs, raw.param2, read),
        ({ vcpuId, vcpuRegs }): Hypercall => ({ _tag: "SetVcpuRegs", vmId, vcpuId, registers: vcpuRegs })
      )
    case HypercallId.SetIoRequestBuffer:
      return Result.map(
        structure(IoRequestBufferWord, raw.param2, read),
        ({ ioreqBuf }): Hypercall => ({ _tag: "SetIoRequestBuffer", vmId, page: ioreqBuf })
      )
    case HypercallId.NotifyRequestFinish:
      return Result.succeed({ _tag: "NotifyRequestFinish", vmId, vcpuId: vmIdOf(raw.param2) })
    case HypercallId.SetMemoryRegions:
      return decodeBatch(raw.param1, read, maxOperations)
    case HypercallId.SetIrqLine:
      return Result.succeed({ _tag: "SetIrqLine", vmId, ...IrqLineWord.fromWord(raw.param2) })
    default:
      return Result.fail(-Errno.ENOTTY)
  }
}

const structure = <A>(
  layout: { readonly size: number; readonly decode: (bytes: Uint8Array) => Result.Result<A, unknown> },
  address: bigint,
  read: StructureReader,
  errno: number = Errno.EPERM
): Result.Result<A, number> => {
  const bytes = read(address, layout.size)
  return bytes === undefined ? Result.fail(-errno) : Result.mapError(layout.decode(bytes), () => -errno)
}

// The driver sends one operation per page, 131,071 at most, while its whole machine stands still: the layout's own
// decoder takes ten times as long.
const readOperations = (bytes: Uint8Array, count: number): Array<MemoryRegionOp> => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  const { attr, serviceVmPa, size, type, userVmPa } = MemoryRegionOp.offsets
  const operations: Array<MemoryRegionOp> = []
  for (let at = 0; at < count * MemoryRegionOp.size; at += MemoryRegionOp.size) {
    operations.push({
      type: view.getUint32(at + type, true),
      attr: view.getUint32(at + attr, true),
      userVmPa: view.getBigUint64(at + userVmPa, true),
      serviceVmPa: view.getBigUint64(at + serviceVmPa, true),
      size: view.getBigUint64(at + size, true)
    })
  }
  return operations
}

const decodeBatch = (
  address: bigint,
  read: StructureReader,
  maxOperations: number
): Result.Result<Hypercall, number> =>
  Result.gen(function*() {
    const head = yield* structure(MemoryRegionBatch, address, read, Errno.ENOTTY)
    if (head.regionsNum > maxOperations) return yield* Result.fail(-Errno.EINVAL)
    const bytes = read(head.regionsGpa, head.regionsNum * MemoryRegionOp.size)
    if (bytes === undefined || bytes.length < head.regionsNum * MemoryRegionOp.size) {
      return yield* Result.fail(-Errno.EPERM)
    }
    const operations = readOperations(bytes, head.regionsNum)
    return { _tag: "SetMemoryRegions", vmId: head.vmid, operations }
  })
