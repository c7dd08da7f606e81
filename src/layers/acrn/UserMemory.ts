/**
 * Service VM memory as the driver takes it: memory of this process, by its address.
 */
import * as Result from "effect/Result"
import { PAGE_BYTES } from "../../domain/Limits.ts"
import { AddressSpace, type Backing, rawBacking } from "../../services/AddressSpace.ts"
import type { MemoryPurpose, ServicePage } from "../../services/ServiceMemory.ts"
import type { Libc } from "../native/Libc.ts"
import { sharedPages } from "../native/sharedPages.ts"

type Memory = Pick<Libc, "addressOf" | "forbidHugePages">

export interface UserBacking extends Backing {
  readonly address: number
}

/** Zero-filled pages that threads can share. */
export const allocatePages = (libc: Memory, bytes: number): Uint8Array<SharedArrayBuffer> => {
  const raw = sharedPages(libc, bytes)
  // The driver maps a huge page as a whole, also where the region that it was given ends inside of it (mm.c,
  // `acrn_vm_ram_map`): the guest would get memory of this process that is not its own.
  libc.forbidHugePages(libc.addressOf(raw), bytes)
  return raw
}

/**
 * A page for I/O requests. The driver wants to know a VM's page when it creates the VM, the hypercalls name it after
 * that: so the driver gets a page of the layer's own, and this one shows it from SET_IOREQ_BUFFER on.
 */
export class RequestPageBacking implements UserBacking {
  readonly bytes = PAGE_BYTES
  readonly address: number
  private readonly own: Backing
  private shown: Backing
  private target: ServicePage

  constructor(libc: Memory) {
    const raw = allocatePages(libc, PAGE_BYTES)
    this.address = libc.addressOf(raw)
    this.own = rawBacking(raw)
    this.shown = this.own
    this.target = this.own.page(0)
  }

  show(other: Backing | undefined): void {
    this.shown = other ?? this.own
    this.target = this.shown.page(0)
  }

  read(offset: number, into: Uint8Array): void {
    this.shown.read(offset, into)
  }

  write(offset: number, from: Uint8Array): void {
    this.shown.write(offset, from)
  }

  page(): ServicePage {
    // Whoever asked before SET_IOREQ_BUFFER sees what is shown after it.
    return {
      load32: (offset) => this.target.load32(offset),
      store32: (offset, value) => this.target.store32(offset, value),
      fetchRequest: (offset, words) => this.target.fetchRequest(offset, words),
      storeRequest: (offset, words) => this.target.storeRequest(offset, words)
    }
  }
}

/** Memory by the addresses that it has in this process. */
export class UserSpace extends AddressSpace<UserBacking> {
  override insert(backing: UserBacking) {
    // Memory of one process does not overlap.
    return Result.getOrThrow(this.insertAt(backing.address, backing))
  }
}

/** The memory for a request of `ServiceMemory`. */
export const backingFor = (libc: Memory, bytes: number, purpose: MemoryPurpose): UserBacking => {
  if (purpose._tag === "IoRequestPage" && bytes === PAGE_BYTES) return new RequestPageBacking(libc)
  const raw = allocatePages(libc, bytes)
  return { ...rawBacking(raw), address: libc.addressOf(raw) }
}
