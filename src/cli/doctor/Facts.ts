/**
 * What is looked up about a machine before anything is made of it.
 */
import type { CapabilityName } from "../../layers/kvm/abi/Capability.ts"

/** Whether something is there, or why it cannot be used. */
export type Availability =
  | { readonly _tag: "Usable"; readonly detail: string }
  | { readonly _tag: "Unusable"; readonly problem: string }

/** Whose a file is: names, or numbers that have none. `mode` has the permission bits alone. */
interface Owner {
  readonly user: string
  readonly group: string
  readonly mode: number
}

/** A device file: what opening it to read and write gave. */
export type DeviceFact =
  | { readonly _tag: "Opened" }
  | { readonly _tag: "Absent" }
  | { readonly _tag: "Refused"; readonly code: string; readonly owner: Owner }

/**
 * Who runs this. `groups` are those of this process; `listedGroups` those that the system's list gives the user, which
 * count from the next login on.
 */
export interface User {
  readonly name: string
  readonly groups: ReadonlyArray<string>
  readonly listedGroups: ReadonlyArray<string>
}

/**
 * - `platform`: as Node.js calls it, such as `linux x64`.
 * - `hypervisor`: what this machine runs on: `acrn`, `none`, another's name, or undefined when it could not be told.
 * - `options`: the kernel's options by name, each `y` or `m`; undefined when its configuration is not to be read.
 */
export interface MachineFacts {
  readonly platform: string
  readonly kernel: string
  readonly hypervisor: string | undefined
  readonly options: ReadonlyMap<string, string> | undefined
  readonly koffi: Availability
  readonly user: User
}

export interface AcrnFacts extends MachineFacts {
  readonly path: string
  readonly device: DeviceFact
}

/** What the device answered: `version` is a negative errno from one that is no KVM, and then it has no extensions. */
export interface KvmInterface {
  readonly version: number
  readonly extensions: ReadonlyMap<CapabilityName, number>
}

/** A guest of a few instructions: whether it did what it should, or what happened instead. */
export type Trial = { readonly _tag: "Ran" } | { readonly _tag: "Failed"; readonly problem: string }

/**
 * Guests that were really run. `first` is the simplest one there is; the others are tried where that ran. `onPlainCpu`
 * is the first one again, with the processor features that every KVM has, where it failed with all of them.
 */
export interface Trials {
  readonly first: Trial
  readonly onPlainCpu?: Trial
  readonly longMode?: Trial
  readonly paging?: Trial
  readonly interruptReturn?: Trial
}

/**
 * - `features`: the processor's, as the kernel names them; undefined when it does not tell.
 * - `modules`: which of KVM's modules the kernel has, loaded or built in, as far as it tells.
 * - `isRegistered`: the kernel serves the device, whether or not there is a file for it here.
 * - `interface`: undefined when the device could not be asked.
 * - `trials`: undefined when there was nothing to try them on.
 */
export interface KvmFacts extends MachineFacts {
  readonly path: string
  readonly device: DeviceFact
  readonly features: ReadonlySet<string> | undefined
  readonly modules: ReadonlySet<string>
  readonly isRegistered: boolean
  readonly interface: KvmInterface | undefined
  readonly trials: Trials | undefined
}
