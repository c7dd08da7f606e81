/**
 * What a hypervisor layer can do, in numbers: checked before anything is created, so that asking for more is a typed
 * error and never a half-made VM.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"
import { MAX_VCPUS } from "./Limits.ts"
import { AccessRights } from "./MemoryRegion.ts"

/**
 * - `maxVcpus`: vCPUs in one VM, 1 to 16.
 * - `maxRamBytes`: the most RAM of one VM, in bytes.
 * - `addressBits`: guest physical addresses have this many bits.
 * - `portWidths`, `mmioWidths`: bytes of one access as it reaches the page. A guest's wider access arrives in pieces.
 * - `mapping`: `Pages` maps any guest page to any Service VM page; `OneBlockFromZero` has one block of RAM at guest
 *   address 0 and MMIO only outside of it.
 * - `accessRights`: the rights that a page has exactly when it is mapped with them (default: any). With others a guest
 *   may do more than they say, or less.
 * - `modes`: the processor modes a vCPU can start in.
 * - `startsAllVcpus`: START runs vCPU 0 and every vCPU whose registers were set. ACRN starts vCPU 0 only.
 * - `keepsRamMapped`: RAM cannot be taken away from a VM before it is destroyed. Without it, it can.
 * - `dispatchRole`: what this program is below the hypervisor. The `ServiceModule` (default) does the Service VM's whole
 *   half of the slot protocol; the `DefaultClient` of a kernel's module serves what that leaves to it.
 *
 * @category schemas
 * @since 0.1.0
 */
export const HypervisorProfile = Schema.Struct({
  name: Schema.String,
  maxVcpus: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: MAX_VCPUS })),
  maxRamBytes: Schema.Natural,
  addressBits: Schema.Int.check(Schema.isBetween({ minimum: 20, maximum: 52 })),
  portWidths: Schema.Array(Schema.Literals([1, 2, 4])),
  mmioWidths: Schema.Array(Schema.Literals([1, 2, 4, 8])),
  mapping: Schema.Literals(["Pages", "OneBlockFromZero"]),
  accessRights: Schema.optionalKey(Schema.NonEmptyArray(AccessRights)),
  modes: Schema.Array(Schema.Literals(["Real", "Protected32", "Long64"])),
  startsAllVcpus: Schema.Boolean,
  keepsRamMapped: Schema.optionalKey(Schema.Boolean),
  dispatchRole: Schema.optionalKey(Schema.Literals(["ServiceModule", "DefaultClient"]))
})

/**
 * @category models
 * @since 0.1.0
 */
export type HypervisorProfile = typeof HypervisorProfile.Type
