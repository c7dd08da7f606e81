/** A VM made by hypercalls alone: nobody serves its requests but the test, on the page itself. */
import { Effect, Result } from "effect"
import { SLOT_STATE_OFFSET } from "../../../src/domain/abi/IoRequestSlot.ts"
import { SLOT_BYTES } from "../../../src/domain/Limits.ts"
import * as VcpuRegisters from "../../../src/domain/VcpuRegisters.ts"
import { add, type Raw } from "../../support/gate.ts"

const ENTRY = 0x1000
const RAM_BYTES = 0x1_0000

/** A VM of two vCPUs, Created, whose vCPU 0 will run `code`. */
export const makeBareVm = (raw: Raw, code: Uint8Array) =>
  Effect.gen(function*() {
    const { vmId } = yield* raw.create(3n)
    const pageAddress = yield* raw.newPage()
    yield* raw.setPage(vmId, BigInt(pageAddress))
    const ram = (yield* raw.memory.allocate({ bytes: RAM_BYTES, purpose: { _tag: "GuestRam", vmId } })).address
    yield* raw.regions(vmId, [add(0, ram, RAM_BYTES)])
    raw.put(code, ram + ENTRY)
    yield* raw.setRegisters(vmId, 0, VcpuRegisters.flat32({ entry: ENTRY, stack: RAM_BYTES }))
    const page = Result.getOrThrow(raw.memory.page(pageAddress))
    return {
      vmId,
      ram,
      page,
      state: (vcpu = 0) => page.load32(vcpu * SLOT_BYTES + SLOT_STATE_OFFSET),
      setState: (state: number, vcpu = 0) => page.store32(vcpu * SLOT_BYTES + SLOT_STATE_OFFSET, state)
    }
  })
