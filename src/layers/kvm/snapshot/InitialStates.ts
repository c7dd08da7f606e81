/**
 * What a VM's vCPUs and chips are before they run, so that a reset can make them so again. KVM itself has no reset.
 */
import type { Libc } from "../../native/Libc.ts"
import type { KvmSystem } from "../KvmSystem.ts"
import type { VmFile } from "../VmFile.ts"
import { type Chip, readChips, writeChips } from "./chips.ts"
import { isRefusal, type RawState, type Refusal, StateAccess } from "./RawState.ts"

/** Of VMs that are all made alike, so one VM's is any other's, and only the first of a size is asked. */
export class InitialStates {
  readonly access: StateAccess
  private readonly vcpus: Array<RawState> = []
  private chips: ReadonlyArray<Chip> | undefined

  private constructor(access: StateAccess) {
    this.access = access
  }

  /** The negative errno when KVM does not tell its registers. */
  static make(libc: Libc, system: KvmSystem, hasLocalApic: boolean): InitialStates | number {
    const access = StateAccess.make(libc, system, hasLocalApic)
    return typeof access === "number" ? access : new InitialStates(access)
  }

  /** Learns from a VM that was only just made what is not known yet. */
  learn(vm: VmFile): Refusal | undefined {
    for (const vcpu of vm.vcpus.slice(this.vcpus.length)) {
      const state = this.access.read(vcpu)
      if (isRefusal(state)) return state
      // The counter of a vCPU that starts again begins anew.
      this.vcpus.push({ ...state, tsc: undefined })
    }
    if (this.chips !== undefined) return undefined
    const chips = readChips(vm)
    if (isRefusal(chips)) return chips
    this.chips = chips
    return undefined
  }

  /** Makes a VM that does not run what it was when it was made, but for its memory. */
  restore(vm: VmFile): Refusal | undefined {
    const refused = this.chips === undefined ? undefined : writeChips(vm, this.chips)
    if (refused !== undefined) return refused
    for (const vcpu of vm.vcpus) {
      const refusal = this.access.write(vcpu, this.vcpus[vcpu.id]!)
      if (refusal !== undefined) return refusal
    }
    return undefined
  }
}
