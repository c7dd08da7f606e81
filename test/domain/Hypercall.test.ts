import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Result, Schema } from "effect"
import { HypercallId } from "../../src/domain/abi/HypercallId.ts"
import { MemoryRegionBatch, MemoryRegionOp } from "../../src/domain/abi/MemoryRegionBatch.ts"
import { U16, U32, U64 } from "../../src/domain/abi/Unsigned.ts"
import { VcpuRegs } from "../../src/domain/abi/VcpuRegs.ts"
import { VmCreation } from "../../src/domain/abi/VmCreation.ts"
import * as Hypercall from "../../src/domain/Hypercall.ts"
import { VcpuRegisters } from "../../src/domain/VcpuRegisters.ts"

const SCRATCH = 0x10_0000

const Uuid = Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 255 })))
  .check(Schema.isBetweenLength(16, 16))
const uuid = (bytes: ReadonlyArray<number>) => Uint8Array.from({ length: 16 }, (_, i) => bytes[i % bytes.length]!)

const vmId = { vmId: U16 }
const AnyCall = Schema.TaggedUnion({
  CreateVm: { vmid: U16, vcpuNum: U16, uuid: Uuid, vmFlag: U64, ioreqBuf: U64, cpuAffinity: U64 },
  DestroyVm: vmId,
  StartVm: vmId,
  PauseVm: vmId,
  ResetVm: vmId,
  SetVcpuRegs: { ...vmId, vcpuId: U16, registers: VcpuRegisters },
  SetIoRequestBuffer: { ...vmId, page: U64 },
  NotifyRequestFinish: { ...vmId, vcpuId: U16 },
  SetMemoryRegions: {
    ...vmId,
    operations: Schema.Array(
      Schema.Struct({ type: U32, attr: U32, userVmPa: U64, serviceVmPa: U64, size: U64 })
    ).check(Schema.isMaxLength(6))
  },
  SetIrqLine: { ...vmId, gsi: U32, op: U32 }
})

const anyCall = Arbitrary.map(Arbitrary.schema(AnyCall), (call): Hypercall.Hypercall => {
  if (call._tag !== "CreateVm") return call
  const { _tag, ...creation } = call
  return { _tag, creation: { ...creation, uuid: uuid(creation.uuid) } }
})

/** Service VM memory that holds nothing but the structures of one call. */
const memoryOf = (call: Hypercall.EncodedHypercall): Hypercall.StructureReader => (address, bytes) => {
  const at = Number(address) - SCRATCH
  return at >= 0 && at + bytes <= call.structures.length ? call.structures.slice(at, at + bytes) : undefined
}

const encoded = (call: Hypercall.Hypercall) => Result.getOrThrow(Hypercall.encode(call, SCRATCH))

describe("Hypercall", () => {
  it.prop("decode gives back what encode was given, for every call", [anyCall], ([call]) => {
    const raw = encoded(call)
    assert.deepStrictEqual(Result.getOrThrow(Hypercall.decode(raw, memoryOf(raw), 256)), call)
  }, { arbitrary: { runs: 500 } })

  it.prop("a structure that is not wholly in memory is refused as ACRN does, wherever it is cut", [
    anyCall,
    Schema.Natural
  ], ([call, cut]) => {
    const raw = encoded(call)
    if (raw.structures.length === 0) return
    const kept = cut % raw.structures.length
    const short = { ...raw, structures: raw.structures.slice(0, kept) }
    // These two name their VM in their first structure: without it there is no VM.
    const isVmUnknown = call._tag === "CreateVm" || (call._tag === "SetMemoryRegions" && kept < MemoryRegionBatch.size)
    assert.deepStrictEqual(Hypercall.decode(short, memoryOf(short), 256), Result.fail(isVmUnknown ? -25 : -1))
  })

  it.prop("ids that are none are -ENOTTY", [Schema.Union([U32, Schema.Int]), U64, U64], ([id, param1, param2]) => {
    if (Object.values(HypercallId).includes(id)) return
    assert.deepStrictEqual(Hypercall.decode({ id, param1, param2 }, () => new Uint8Array(512), 256), Result.fail(-25))
  })

  it.prop("VM and vCPU ids are the low 16 bits of their words", [U64, U64], ([param1, param2]) => {
    const decoded = Hypercall.decode({ id: HypercallId.NotifyRequestFinish, param1, param2 }, () => undefined, 256)
    assert.deepStrictEqual(
      Result.getOrThrow(decoded),
      { _tag: "NotifyRequestFinish", vmId: Number(param1 & 0xffffn), vcpuId: Number(param2 & 0xffffn) }
    )
  })

  it("a batch that says it has more operations than fit is refused before one is read", () => {
    let read = 0
    const head = Result.getOrThrow(MemoryRegionBatch.encode({ vmid: 1, regionsNum: 0xffff_ffff, regionsGpa: 0n }))
    const decoded = Hypercall.decode({ id: HypercallId.SetMemoryRegions, param1: 0n, param2: 0n }, () => {
      read++
      return head
    }, 256)
    assert.deepStrictEqual(decoded, Result.fail(-22))
    assert.strictEqual(read, 1)
  })

  it("operations that wrap around the end of the address space are refused", () => {
    const head = Result.getOrThrow(
      MemoryRegionBatch.encode({ vmid: 1, regionsNum: 2, regionsGpa: 0xffff_ffff_ffff_ffe0n })
    )
    const operation = Result.getOrThrow(
      MemoryRegionOp.encode({ type: 0, attr: 7, userVmPa: 0n, serviceVmPa: 0n, size: 4096n })
    )
    const decoded = Hypercall.decode(
      { id: HypercallId.SetMemoryRegions, param1: 0n, param2: 0n },
      (address) => address === 0n ? head : address < 1n << 64n ? operation : undefined,
      256
    )
    assert.deepStrictEqual(decoded, Result.fail(-1))
  })

  it("a value that does not fit its field is an error, not a truncation", () => {
    const create = { _tag: "CreateVm", creation: { vmid: 0x1_0000, vcpuNum: 0, uuid: new Uint8Array(16) } }
    const bad = Hypercall.encode({
      ...create,
      creation: { ...create.creation, vmFlag: 0n, ioreqBuf: 0n, cpuAffinity: 0n }
    } as Hypercall.Hypercall, SCRATCH)
    assert.strictEqual(
      Result.getOrThrow(Result.flip(bad)).message,
      "acrn_vm_creation.vmid cannot hold 65536; pass a value of the field's type and width"
    )
  })

  it("structures are as large as the layouts say", () => {
    const registers = Result.getOrThrow(VcpuRegs.decode(new Uint8Array(VcpuRegs.size))).vcpuRegs
    assert.strictEqual(
      encoded({ _tag: "SetVcpuRegs", vmId: 1, vcpuId: 0, registers }).structures.length,
      VcpuRegs.size
    )
    const creation = Result.getOrThrow(VmCreation.decode(new Uint8Array(VmCreation.size)))
    assert.strictEqual(encoded({ _tag: "CreateVm", creation }).structures.length, 48)
  })
})
