/**
 * The memory map against the obvious one, a table of pages; and against a kernel that refuses what KVM refuses.
 */
import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { MemoryAccess } from "../../../src/domain/abi/MemoryRegionBatch.ts"
import { Errno } from "../../../src/domain/Errno.ts"
import { GuestSlots } from "../../../src/layers/kvm/GuestSlots.ts"

const PAGE = 4096
const PAGES = 24
const HOST = 0x7000_0000_0000

interface Slot {
  readonly guest: number
  readonly bytes: number
  readonly host: number
  readonly isReadOnly: boolean
}

/** KVM's rules for slots: none overlaps another, and none is changed in place. */
class FakeKernel {
  readonly slots = new Map<number, Slot>()
  calls = 0
  /** The call that is refused, counted from 1. */
  failing = 0

  readonly setSlot = (slot: number, guest: number, bytes: number, host: number, isReadOnly: boolean): number => {
    if (++this.calls === this.failing) return -Errno.ENOMEM
    if (bytes === 0) {
      assert.isTrue(this.slots.delete(slot), "a slot that is not there was taken away")
      return 0
    }
    assert.isFalse(this.slots.has(slot), "a slot was given anew before it was taken away")
    for (const other of this.slots.values()) {
      if (guest < other.guest + other.bytes && other.guest < guest + bytes) return -Errno.EEXIST
    }
    this.slots.set(slot, { guest, bytes, host, isReadOnly })
    return 0
  }

  /** What the guest finds at each page: where it is in the host, and whether it can be written. */
  pages(): Array<string> {
    return Array.from({ length: PAGES }, (_, page) => {
      for (const { bytes, guest, host, isReadOnly } of this.slots.values()) {
        const at = page * PAGE
        if (at >= guest && at < guest + bytes) {
          return `${(host + at - guest - HOST) / PAGE}${isReadOnly ? " read-only" : ""}`
        }
      }
      return "hole"
    })
  }
}

const page = (most: number) => Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: most }))

const Operation = Schema.Struct({
  isMap: Schema.Boolean,
  guest: page(PAGES - 1),
  service: page(30),
  pages: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 6 })),
  rights: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 7 }))
})

// Service memory is two backings side by side, of 16 pages each, that are far from each other in the host.
const SPLIT = 16
const hostOf = (servicePage: number): number => HOST + (servicePage + (servicePage < SPLIT ? 0 : 1000)) * PAGE

const make = (kernel: FakeKernel, maxSlots = 1000) =>
  new GuestSlots({
    setSlot: kernel.setSlot,
    maxSlots,
    host: (service, bytes) => {
      const first = service / PAGE
      const end = first + bytes / PAGE
      if (end > 2 * SPLIT) return undefined
      const middle = Math.min(Math.max(first, SPLIT), end)
      return [
        { bytes: (middle - first) * PAGE, address: hostOf(first), owner: "low" },
        { bytes: (end - middle) * PAGE, address: hostOf(middle), owner: "high" }
      ].filter((run) => run.bytes > 0)
    }
  })

const inGuest = ({ guest, pages }: typeof Operation.Type) => Math.min(pages, PAGES - guest)

describe("GuestSlots", () => {
  it.prop(
    "a guest finds what ACRN's page tables would show it: first come, all or nothing, no page that cannot be read",
    [Schema.Array(Operation).check(Schema.isMaxLength(20))],
    ([operations]) => {
      const kernel = new FakeKernel()
      const slots = make(kernel)
      const table = Array.from({ length: PAGES }, () => ({ service: 0, rights: 0 }))
      for (const operation of operations) {
        const { guest, isMap, rights, service } = operation
        const pages = inGuest(operation)
        const met = table.slice(guest, guest + pages)
        if (isMap) {
          const result = slots.map(guest * PAGE, service * PAGE, pages * PAGE, rights)
          assert.strictEqual(result, service + pages > 2 * SPLIT ? -Errno.EINVAL : 0)
          if (result === 0 && rights !== 0) {
            for (const [index, entry] of met.entries()) {
              if (entry.rights === 0) table[guest + index] = { service: service + index, rights }
            }
          }
        } else {
          const isWhole = met.every((entry) => entry.rights !== 0)
          assert.strictEqual(slots.unmap(guest * PAGE, pages * PAGE), isWhole ? 0 : -Errno.EINVAL)
          if (isWhole) table.splice(guest, pages, ...met.map(() => ({ service: 0, rights: 0 })))
        }
        assert.deepStrictEqual(
          kernel.pages(),
          table.map((entry) =>
            (entry.rights & MemoryAccess.Read) === 0
              ? "hole"
              : `${(hostOf(entry.service) - HOST) / PAGE}${
                (entry.rights & MemoryAccess.Write) === 0 ? " read-only" : ""
              }`
          )
        )
        assert.deepStrictEqual(
          slots.slots.map((slot) => slot.slot).toSorted((a, b) => a - b),
          [...kernel.slots.keys()].toSorted((a, b) => a - b)
        )
      }
    }
  )

  it.prop(
    "a mapping that the kernel refuses anywhere on the way changes nothing",
    [Operation, Operation, Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 4 }))],
    ([first, second, failing]) => {
      const kernel = new FakeKernel()
      const slots = make(kernel)
      slots.map(first.guest * PAGE, 0, inGuest(first) * PAGE, MemoryAccess.All)
      const before = kernel.pages()
      kernel.failing = kernel.calls + failing
      const result = slots.map(second.guest * PAGE, 14 * PAGE, inGuest(second) * PAGE, MemoryAccess.All)
      if (result === 0) return
      assert.strictEqual(result, -Errno.ENOMEM)
      assert.deepStrictEqual(kernel.pages(), before)
    }
  )

  it.prop(
    "an unmapping that the kernel refuses anywhere on the way changes nothing",
    [Operation, Operation, Operation, Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 6 }))],
    ([first, second, third, failing]) => {
      const kernel = new FakeKernel()
      const slots = make(kernel)
      for (const each of [first, second]) slots.map(each.guest * PAGE, 0, inGuest(each) * PAGE, MemoryAccess.All)
      const before = kernel.pages()
      kernel.failing = kernel.calls + failing
      const result = slots.unmap(third.guest * PAGE, inGuest(third) * PAGE)
      if (result !== -Errno.ENOMEM) return
      assert.deepStrictEqual(kernel.pages(), before)
      assert.deepStrictEqual(
        slots.slots.map(({ bytes, guest, host, slot }) => [slot, { guest, bytes, host, isReadOnly: false }]),
        [...kernel.slots].toSorted(([, a], [, b]) => a.guest - b.guest)
      )
    }
  )

  it("says that memory is mapped while the kernel does not let go of it", () => {
    const kernel = new FakeKernel()
    const slots = make(kernel)
    slots.map(0, 0, PAGE, MemoryAccess.All)
    kernel.failing = kernel.calls + 1
    assert.strictEqual(slots.unmap(0, PAGE), -Errno.ENOMEM)
    assert.strictEqual(slots.slots.length, 1)
    assert.strictEqual(slots.unmap(0, PAGE), 0)
    assert.strictEqual(kernel.slots.size, 0)
  })

  it("refuses what takes more slots than the kernel has, and gives slots again", () => {
    const kernel = new FakeKernel()
    const slots = make(kernel, 2)
    assert.strictEqual(slots.map(0, 0, PAGE, MemoryAccess.All), 0)
    assert.strictEqual(slots.map(2 * PAGE, 2 * PAGE, PAGE, MemoryAccess.All), 0)
    assert.strictEqual(slots.map(4 * PAGE, 4 * PAGE, PAGE, MemoryAccess.All), -Errno.ENOMEM)
    assert.strictEqual(slots.unmap(0, PAGE), 0)
    assert.strictEqual(slots.map(4 * PAGE, 4 * PAGE, PAGE, MemoryAccess.All), 0)
    assert.strictEqual(kernel.slots.size, 2)
  })

  it("tells when taking memory away splits a slot", () => {
    const slots = make(new FakeKernel())
    slots.map(4 * PAGE, 0, 4 * PAGE, MemoryAccess.All)
    assert.isFalse(slots.isSplitBy(4 * PAGE, 4 * PAGE))
    assert.isTrue(slots.isSplitBy(4 * PAGE, 2 * PAGE))
    assert.isTrue(slots.isSplitBy(5 * PAGE, 3 * PAGE))
  })
})
