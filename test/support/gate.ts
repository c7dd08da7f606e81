/** Hypercalls by hand: ids, words and bytes, with nothing typed between a test and the gate. */
import { Effect, Result } from "effect"
import { HypercallId } from "../../src/domain/abi/HypercallId.ts"
import { IoRequestBufferWord } from "../../src/domain/abi/IoRequestBufferWord.ts"
import { SLOT_STATE_OFFSET } from "../../src/domain/abi/IoRequestSlot.ts"
import { MemoryRegionBatch, MemoryRegionOp } from "../../src/domain/abi/MemoryRegionBatch.ts"
import { type Regs, VcpuRegs } from "../../src/domain/abi/VcpuRegs.ts"
import { VmCreation } from "../../src/domain/abi/VmCreation.ts"
import { SLOT_BYTES } from "../../src/domain/Limits.ts"
import { HypercallGate } from "../../src/services/HypercallGate.ts"
import { ServiceMemory } from "../../src/services/ServiceMemory.ts"

export const EPERM = -1
export const EINVAL = -22
export const ENOTTY = -25
export const NO_VM = 0xffff

/** A service address that is no memory. */
export const NOWHERE = 0xdead_0000n

const bytesOf = <A, E>(encoded: Result.Result<A, E>): A => Result.getOrThrow(encoded)

/** The calls of one hypervisor, over scratch memory of their own. */
export const makeRaw = Effect.gen(function*() {
  const gate = yield* HypercallGate
  const memory = yield* ServiceMemory
  const scratch = (yield* memory.allocate({ bytes: 0x2000, purpose: { _tag: "HypercallStructures" } })).address
  const page = () =>
    Effect.map(memory.allocate({ bytes: 0x1000, purpose: { _tag: "IoRequestPage" } }), ({ address }) => address)

  const put = (bytes: Uint8Array, at: number = scratch): bigint => {
    Result.getOrThrow(memory.write(at, bytes))
    return BigInt(at)
  }
  const get = (bytes: number, at: number = scratch): Uint8Array => {
    const into = new Uint8Array(bytes)
    Result.getOrThrow(memory.read(at, into))
    return into
  }

  const create = (cpuAffinity: bigint) =>
    Effect.gen(function*() {
      const creation = { vmid: 0x1234, vcpuNum: 0, uuid: new Uint8Array(16), vmFlag: 0n, ioreqBuf: 0n, cpuAffinity }
      const result = yield* gate.call(HypercallId.CreateVm, put(bytesOf(VmCreation.encode(creation))), 0n)
      const { vcpuNum, vmid } = Result.getOrThrow(VmCreation.decode(get(VmCreation.size)))
      return { result, vmId: vmid, vcpus: vcpuNum }
    })

  const plain = (id: number) => (vmId: number) => gate.call(id, BigInt(vmId), 0n)

  const regions = (vmId: number, operations: ReadonlyArray<MemoryRegionOp>) =>
    Effect.suspend(() => {
      put(bytesOf(MemoryRegionBatch.encode({
        vmid: vmId,
        regionsNum: operations.length,
        regionsGpa: BigInt(scratch + 0x100)
      })))
      for (const [i, operation] of operations.entries()) {
        put(bytesOf(MemoryRegionOp.encode(operation)), scratch + 0x100 + i * MemoryRegionOp.size)
      }
      return gate.call(HypercallId.SetMemoryRegions, BigInt(scratch), 0n)
    })

  return {
    gate,
    memory,
    scratch,
    newPage: page,
    put,
    get,
    create,
    destroy: plain(HypercallId.DestroyVm),
    start: plain(HypercallId.StartVm),
    pause: plain(HypercallId.PauseVm),
    reset: plain(HypercallId.ResetVm),
    setRegisters: (vmId: number, vcpuId: number, vcpuRegs: Regs) =>
      Effect.suspend(() =>
        gate.call(HypercallId.SetVcpuRegs, BigInt(vmId), put(bytesOf(VcpuRegs.encode({ vcpuId, vcpuRegs }))))
      ),
    setPage: (vmId: number, address: bigint) =>
      Effect.suspend(() =>
        gate.call(
          HypercallId.SetIoRequestBuffer,
          BigInt(vmId),
          put(bytesOf(IoRequestBufferWord.encode({ ioreqBuf: address })))
        )
      ),
    notify: (vmId: number, vcpu: bigint) => gate.call(HypercallId.NotifyRequestFinish, BigInt(vmId), vcpu),
    regions,
    irq: (vmId: number, gsi: number, op: number) =>
      gate.call(HypercallId.SetIrqLine, BigInt(vmId), BigInt(op) << 32n | BigInt(gsi)),
    /** The state words of a page's slots. */
    states: (address: number): ReadonlyArray<number> => {
      const view = Result.getOrThrow(memory.page(address))
      return Array.from({ length: 16 }, (_, slot) => view.load32(slot * SLOT_BYTES + SLOT_STATE_OFFSET))
    }
  }
})

export type Raw = Effect.Success<typeof makeRaw>

/** An operation that maps guest pages read-write-execute. */
export const add = (guest: number, service: number, size: number, type = 0, attr = 0x47): MemoryRegionOp => ({
  type,
  attr,
  userVmPa: BigInt(guest),
  serviceVmPa: BigInt(service),
  size: BigInt(size)
})
