/** What CPUID answers a guest, over leaves as processors of both vendors have them, and over any at all. */
import { assert, describe, it } from "@effect/vitest"
import type { CpuidEntry2 } from "../../../src/layers/kvm/abi/Cpuid.ts"
import { type CpuidOptions, leavesFor, plainLeaves } from "../../../src/layers/kvm/cpuid.ts"
import * as Generator from "../../../src/testing/Generator.ts"

const leaf = (
  fn: number,
  index: number,
  eax: number,
  ebx: number,
  ecx: number,
  edx: number,
  flags = index > 0 ? 1 : 0
): CpuidEntry2 => ({ function: fn, index, flags, eax, ebx, ecx, edx })

const kvmLeaves = [
  leaf(0x4000_0000, 0, 0x4000_0001, 0x4b4d_564b, 0x564b_4d56, 0x4d),
  leaf(0x4000_0001, 0, 0x0100_fefb, 0, 0, 0)
]

// A host with two threads in each of its cores, and three kinds of cache.
const intel: ReadonlyArray<CpuidEntry2> = [
  leaf(0, 0, 0x1f, 0x756e_6547, 0x6c65_746e, 0x4965_6e69),
  leaf(1, 0, 0x5_0654, 0x0710_0800, 0xfeda_322b, 0x0f8b_fbff),
  leaf(4, 0, 0x3c00_4121, 0x01c0_003f, 0x3f, 0, 1),
  leaf(4, 1, 0x3c00_4122, 0x01c0_003f, 0x3f, 0),
  leaf(4, 2, 0x3c00_4143, 0x03c0_003f, 0x3ff, 0),
  leaf(4, 3, 0x3c07_c163, 0x0280_003f, 0x6fff, 4),
  leaf(4, 4, 0, 0, 0, 0),
  leaf(5, 0, 0x40, 0x40, 3, 0x2020),
  leaf(0xb, 0, 1, 2, 0x100, 7, 1),
  leaf(0xb, 1, 5, 0x20, 0x201, 7),
  leaf(0xd, 0, 0xe7, 0x340, 0xa80, 0, 1),
  leaf(0x1f, 0, 1, 2, 0x100, 7, 1),
  leaf(0x1f, 1, 5, 0x20, 0x201, 7),
  ...kvmLeaves,
  leaf(0x8000_0000, 0, 0x8000_0008, 0, 0, 0),
  leaf(0x8000_0001, 0, 0, 0, 0x121, 0x2c10_0800),
  leaf(0x8000_0008, 0, 0x302e, 0, 0, 0)
]

const amd: ReadonlyArray<CpuidEntry2> = [
  leaf(0, 0, 0x10, 0x6874_7541, 0x444d_4163, 0x6974_6e65),
  leaf(1, 0, 0xa1_0f11, 0x0102_0800, 0x8120_2008, 0x078b_fbff),
  leaf(4, 0, 0, 0, 0, 0, 1),
  // As some kernels list it: the first level only.
  leaf(0xb, 0, 0, 0, 0, 1, 1),
  ...kvmLeaves,
  leaf(0x8000_0000, 0, 0x8000_0021, 0x6874_7541, 0x444d_4163, 0x6974_6e65),
  leaf(0x8000_0001, 0, 0xa1_0f11, 0x4000_0000, 0x2040_0395, 0x23d3_fbff),
  leaf(0x8000_0008, 0, 0x3030, 0x0500_2000, 0x1_7001, 0),
  leaf(0x8000_000a, 0, 1, 0x8000, 0, 0x119b_9cff),
  leaf(0x8000_001d, 0, 0x4121, 0x01c0_003f, 0x3f, 0, 1),
  leaf(0x8000_001d, 1, 0x4163, 0x03c0_003f, 0x7fff, 1),
  leaf(0x8000_001d, 2, 0, 0, 0, 0),
  leaf(0x8000_001e, 0, 5, 0x0102, 0x0300, 0)
]

const options = (some: Partial<CpuidOptions> = {}): CpuidOptions => ({
  vcpu: 0,
  vcpus: 4,
  hasLocalApic: true,
  hasTscDeadline: true,
  ...some
})

const find = (leaves: ReadonlyArray<CpuidEntry2>, fn: number, index = 0): CpuidEntry2 =>
  leaves.find((entry) => entry.function === fn && entry.index === index)!

const hasBit = (word: number, bit: number): boolean => (word >>> bit & 1) === 1

const isTopology = (entry: CpuidEntry2): boolean => entry.function === 0xb || entry.function === 0x1f

/** The leaves in their order, each kind of topology once. */
const order = (leaves: ReadonlyArray<CpuidEntry2>): ReadonlyArray<string> =>
  leaves.filter((entry) => !isTopology(entry) || entry.index === 0).map((entry) => `${entry.function}.${entry.index}`)

const word = Generator.integer(0, 0xffff_ffff)

/** Any answers at all, on leaves of which many mean something. */
const anyLeaves: Generator.Generator<ReadonlyArray<CpuidEntry2>> = Generator.map(
  Generator.array(
    Generator.all([
      Generator.elementOf([0, 1, 2, 4, 5, 7, 0xb, 0xd, 0x1f, 0x4000_0001, 0x8000_0001, 0x8000_0008, 0x8000_001e]),
      Generator.integer(0, 3),
      word,
      Generator.oneOf(word, Generator.elementOf([0x6874_7541, 0x756e_6547])),
      word,
      word
    ]),
    { maxLength: 40 }
  ),
  (rows) => {
    const seen = new Set<string>()
    return rows.flatMap(([fn, index, eax, ebx, ecx, edx]) => {
      const key = `${fn}.${index}`
      if (seen.has(key)) return []
      seen.add(key)
      return [leaf(fn, index, eax, ebx, ecx, edx)]
    })
  }
)

const isWord = (value: number): boolean => Number.isInteger(value) && value >= 0 && value <= 0xffff_ffff

describe("CPUID for guests", () => {
  it("gives each vCPU its own APIC id, wherever CPUID tells of it", () => {
    for (const supported of [intel, amd]) {
      for (let vcpu = 0; vcpu < 16; vcpu++) {
        const leaves = leavesFor(supported, options({ vcpu, vcpus: 16 }))
        assert.strictEqual(find(leaves, 1).ebx >>> 24, vcpu)
        for (const entry of leaves.filter(isTopology)) assert.strictEqual(entry.edx, vcpu)
        if (supported === amd) assert.strictEqual(find(leaves, 0x8000_001e).eax, vcpu)
      }
    }
  })

  it("makes each vCPU a core of one package", () => {
    for (const [vcpus, bits] of [[1, 0], [2, 1], [3, 2], [4, 2], [5, 3], [16, 4]] as const) {
      const leaves = leavesFor(intel, options({ vcpus }))
      assert.strictEqual(find(leaves, 1).ebx >>> 16 & 0xff, vcpus)
      assert.strictEqual(hasBit(find(leaves, 1).edx, 28), vcpus > 1)
      for (const fn of [0xb, 0x1f]) {
        assert.deepInclude(find(leaves, fn, 0), { eax: 0, ebx: 1, ecx: 0x100 })
        assert.deepInclude(find(leaves, fn, 1), { eax: bits, ebx: vcpus, ecx: 0x201 })
        assert.deepInclude(find(leaves, fn, 2), { eax: 0, ebx: 0, ecx: 2 })
      }
      // Cores of the package, less one; processors that share the cache, less one: both rounded up to a power of 2.
      assert.strictEqual(find(leaves, 4, 0).eax, (2 ** bits - 1 << 26 | 0x121) >>> 0)
      assert.strictEqual(find(leaves, 4, 2).eax, (2 ** bits - 1 << 26 | 0x143) >>> 0)
      assert.strictEqual(find(leaves, 4, 3).eax, (2 ** bits - 1 << 26 | 2 ** bits - 1 << 14 | 0x163) >>> 0)
      assert.strictEqual(find(leaves, 4, 4).eax, 0)
      assert.strictEqual(find(leaves, 0x8000_0008).ecx, 0, "Intel has nothing there")
    }
  })

  it("says the same in AMD's own leaves", () => {
    for (const [vcpus, bits] of [[1, 0], [2, 1], [3, 2], [16, 4]] as const) {
      const leaves = leavesFor(amd, options({ vcpu: vcpus - 1, vcpus }))
      assert.strictEqual(find(leaves, 0x8000_0008).ecx, 0x1_0000 | bits << 12 | vcpus - 1)
      assert.strictEqual(hasBit(find(leaves, 0x8000_0001).ecx, 1), vcpus > 1)
      assert.strictEqual(find(leaves, 0x8000_001d, 0).eax, 0x121)
      assert.strictEqual(find(leaves, 0x8000_001d, 1).eax, 0x163 | vcpus - 1 << 14)
      assert.deepInclude(find(leaves, 0x8000_001e), { eax: vcpus - 1, ebx: vcpus - 1, ecx: 0 })
      // A host that lists one level only.
      assert.deepInclude(find(leaves, 0xb, 1), { eax: bits, ebx: vcpus, ecx: 0x201, edx: vcpus - 1 })
    }
  })

  it("says that there is a hypervisor, and no MONITOR, VMX or SVM", () => {
    for (const supported of [intel, amd]) {
      const leaves = leavesFor(supported, options())
      const { ecx } = find(leaves, 1)
      assert.isTrue(hasBit(ecx, 31))
      for (const bit of [3, 5, 27]) assert.isFalse(hasBit(ecx, bit))
    }
    assert.deepInclude(find(leavesFor(intel, options()), 5), { eax: 0, ebx: 0, ecx: 0, edx: 0 })
    const leaves = leavesFor(amd, options())
    for (const bit of [2, 3, 29]) assert.isFalse(hasBit(find(leaves, 0x8000_0001).ecx, bit))
    assert.deepInclude(find(leaves, 0x8000_000a), { eax: 0, ebx: 0, ecx: 0, edx: 0 })
  })

  it("has the local APIC and what hangs on it only where the VM has", () => {
    for (const supported of [intel, amd]) {
      const has = leavesFor(supported, options())
      assert.isTrue(hasBit(find(has, 1).edx, 9))
      assert.isTrue(hasBit(find(has, 1).ecx, 21))
      assert.isTrue(hasBit(find(has, 1).ecx, 24))
      assert.strictEqual(find(has, 0x4000_0001).eax, 0x0100_fefb)
      assert.isFalse(hasBit(find(leavesFor(supported, options({ hasTscDeadline: false })), 1).ecx, 24))
      const none = leavesFor(supported, options({ hasLocalApic: false }))
      assert.isFalse(hasBit(find(none, 1).edx, 9))
      assert.isFalse(hasBit(find(none, 1).ecx, 21))
      assert.isFalse(hasBit(find(none, 1).ecx, 24))
      // The clock and its kin stay; end of interrupt, IPIs and page faults by interrupt go.
      assert.strictEqual(find(none, 0x4000_0001).eax, 0x0100_122b)
    }
    assert.isFalse(hasBit(find(leavesFor(amd, options({ hasLocalApic: false })), 0x8000_0001).edx, 9))
  })

  it("leaves other answers alone", () => {
    for (const fn of [0xd, 0x8000_0000, 0x4000_0000]) {
      assert.deepStrictEqual(find(leavesFor(intel, options()), fn), find(intel, fn))
    }
    assert.strictEqual(find(leavesFor(intel, options()), 1).eax, 0x5_0654)
    assert.strictEqual(find(leavesFor(intel, options()), 1).ebx & 0xffff, 0x0800)
  })

  it.prop(
    "keeps the leaves and their order, and words of 32 bits, whatever KVM says",
    [anyLeaves, Generator.integer(1, 16), Generator.boolean, Generator.boolean],
    ([supported, vcpus, hasLocalApic, hasTscDeadline]) => {
      const ids = new Set<string>()
      for (let vcpu = 0; vcpu < vcpus; vcpu++) {
        const leaves = leavesFor(supported, { vcpu, vcpus, hasLocalApic, hasTscDeadline })
        assert.deepStrictEqual(order(leaves), order(supported))
        for (const { eax, ebx, ecx, edx } of leaves) assert.isTrue([eax, ebx, ecx, edx].every(isWord))
        assert.isFalse(leaves.some((entry) => entry.function === 1 && hasBit(entry.edx, 9) && !hasLocalApic))
        const features = leaves.find((entry) => entry.function === 1)
        ids.add(String(features === undefined ? vcpu : features.ebx >>> 24))
      }
      assert.strictEqual(ids.size, vcpus)
    }
  )

  it.prop("makes the plain processor of nothing that KVM did not offer", [anyLeaves], ([supported]) => {
    for (const plain of plainLeaves(supported)) {
      const offered = find(supported, plain.function, plain.index)
      if (plain.function !== 0 && plain.function !== 0x8000_0000) {
        assert.strictEqual((plain.ecx & ~offered.ecx) >>> 0, 0)
        assert.strictEqual((plain.edx & ~offered.edx) >>> 0, 0)
      }
    }
  })

  it("makes a plain processor that ends with the leaves it has", () => {
    for (const supported of [intel, amd]) {
      const plain = plainLeaves(supported)
      assert.strictEqual(find(plain, 0).eax, 0xb)
      assert.strictEqual(find(plain, 0x8000_0000).eax, 0x8000_0008)
      assert.isUndefined(find(plain, 0xd))
      assert.isUndefined(find(plain, 0x8000_001e))
      // No AVX, XSAVE or RDRAND; SSE2, SYSCALL and 64-bit mode.
      assert.strictEqual(find(plain, 1).ecx & (1 << 28 | 1 << 26 | 1 << 30), 0)
      assert.isTrue(hasBit(find(plain, 1).edx, 26))
      assert.strictEqual(find(plain, 0x8000_0001).edx & 0x2010_0800, 0x2010_0800 & find(supported, 0x8000_0001).edx)
      assert.deepStrictEqual(order(leavesFor(plain, options())), order(plain))
    }
  })
})
