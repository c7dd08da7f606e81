/** One call of a hypercall sequence, as data. */
import * as Schema from "effect/Schema"
import { U16, U32, U64 } from "../../domain/abi/Unsigned.ts"
import { MAX_VCPUS } from "../../domain/Limits.ts"

/** VMs that calls can name. */
export const NAMED_VMS = 4

/** Bytes of the memory that `Own` operations of a batch map. */
export const RAM_BYTES = 0x2000

// Where the call's structure lies: in memory, where there is none, or over the end of the 64-bit address space.
const structure = { structure: Schema.Literals(["Memory", "Nowhere", "Wrapping"]) }
const vm = { vm: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: NAMED_VMS - 1 })) }

export const RegionOperation = Schema.Struct({
  type: U32,
  attributes: U32,
  guest: U64,
  service: Schema.Literals(["Own", "Nowhere"]),
  size: Schema.Literals([0, 0x800, 0x1000, RAM_BYTES])
})

export type RegionOperation = typeof RegionOperation.Type

export const Call = Schema.TaggedUnion({
  Create: { affinity: U64, ...structure },
  Destroy: vm,
  Start: vm,
  Pause: vm,
  Reset: vm,
  Resume: vm,
  SetRegisters: { ...vm, vcpu: U16, rax: U32, control: Schema.Literals(["Legal", "BadCr0", "BadCr4"]), ...structure },
  SetPage: { ...vm, page: Schema.Literals(["Own", "Nowhere", "Misaligned"]), ...structure },
  Notify: { ...vm, vcpu: U32, form: Schema.Literals(["Hypercall", "Synchronous"]) },
  SetRegions: { ...vm, operations: Schema.Array(RegionOperation), ...structure },
  SetIrqLine: { ...vm, line: U32, operation: U32 },
  Unknown: { number: Schema.Int.check(Schema.isBetween({ minimum: 0x100, maximum: 0xff_ffff })) },
  WriteSlot: {
    ...vm,
    slot: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: MAX_VCPUS - 1 })),
    state: U32
  }
})

export type Call = typeof Call.Type
