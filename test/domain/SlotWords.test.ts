import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Schema } from "effect"
import * as Slot from "../../src/domain/abi/IoRequestSlot.ts"
import { GuestAddress, VcpuId } from "../../src/domain/Address.ts"
import { format, IoRequest } from "../../src/domain/IoRequest.ts"
import * as SlotWords from "../../src/domain/SlotWords.ts"

const ADDRESS = Slot.REQUEST_ADDRESS_OFFSET / 4
const SIZE = Slot.REQUEST_SIZE_OFFSET / 4
const VALUE = Slot.REQUEST_VALUE_OFFSET / 4
const at = (offset: number): number => offset / 4

// Words of a hostile page: often near what is legal, so that every check is reached.
const AnyWord = Schema.Int.check(Schema.isBetween({ minimum: -(2 ** 31), maximum: 2 ** 31 - 1 }))
const TemptingWord = Schema.Union([
  Schema.Literals([0, 1, 2, 3, 4, 7, 8, 16, 31, 32, 255, 256, 0xfff, 0x1000, 0xffff, 0x1_0000, 0xf_ffff, 0x10_0000]),
  Schema.Literals([-1, -4, -8, -(2 ** 31), 2 ** 31 - 1, 0xfffc, 0xfffd, 0xfffe, 0xcf8, 0xcfc]),
  AnyWord
])
// Mostly one word is wrong, so that the checks behind the first ones are reached too.
const NearlyLegal = Schema.Struct({
  isWild: Schema.Literals([true, false, false, false]),
  type: Schema.Literals([0, 1, 2, 3]),
  direction: Schema.Literals([0, 1]),
  size: Schema.Literals([1, 2, 4, 8]),
  address: TemptingWord,
  high: Schema.Union([Schema.Literal(0), TemptingWord]),
  bus: Schema.Union([Schema.Literal(0), TemptingWord]),
  device: Schema.Union([Schema.Literal(0), TemptingWord]),
  function: Schema.Union([Schema.Literal(0), TemptingWord]),
  register: Schema.Union([Schema.Literal(0), TemptingWord])
})
const anyWords = Arbitrary.map(
  Arbitrary.all([
    Arbitrary.array(Arbitrary.schema(TemptingWord), { minLength: 64, maxLength: 64 }),
    Arbitrary.schema(NearlyLegal)
  ]),
  ([wild, nearly]) => {
    const words = Int32Array.from(wild)
    if (nearly.isWild) return words
    words[at(Slot.SLOT_TYPE_OFFSET)] = nearly.type
    words[at(Slot.REQUEST_DIRECTION_OFFSET)] = nearly.direction
    words[SIZE] = nearly.size
    words[SIZE + 1] = 0
    words[ADDRESS] = nearly.address
    words[ADDRESS + 1] = nearly.high
    if (nearly.type === 2) {
      words[at(Slot.REQUEST_PCI_BUS_OFFSET)] = nearly.bus
      words[at(Slot.REQUEST_PCI_DEVICE_OFFSET)] = nearly.device
      words[at(Slot.REQUEST_PCI_FUNCTION_OFFSET)] = nearly.function
      words[at(Slot.REQUEST_PCI_REGISTER_OFFSET)] = nearly.register
    }
    return words
  }
)
const isRequest = Schema.is(IoRequest)

/** The words that a hypervisor writes for a request. */
const wordsOf = (request: IoRequest): Int32Array => {
  const words = new Int32Array(SlotWords.SLOT_WORDS)
  const value = "value" in request ? BigInt(request.value) : 0n
  words[at(Slot.REQUEST_DIRECTION_OFFSET)] = "value" in request ? 1 : 0
  words[SIZE] = request.size
  words[VALUE] = Number(BigInt.asIntN(32, value))
  switch (request._tag) {
    case "PortRead":
    case "PortWrite":
      words[at(Slot.SLOT_TYPE_OFFSET)] = Slot.RequestTypeCode.PortIo
      words[ADDRESS] = request.port
      return words
    case "MmioRead":
    case "MmioWrite":
      words[at(Slot.SLOT_TYPE_OFFSET)] = Slot.RequestTypeCode.Mmio
      words[ADDRESS] = Number(BigInt.asIntN(32, BigInt(request.address)))
      words[ADDRESS + 1] = Number(BigInt(request.address) >> 32n)
      words[VALUE + 1] = Number(BigInt.asIntN(32, value >> 32n))
      return words
    case "PciRead":
    case "PciWrite":
      words[at(Slot.SLOT_TYPE_OFFSET)] = Slot.RequestTypeCode.PciConfig
      words[at(Slot.REQUEST_PCI_BUS_OFFSET)] = request.bus
      words[at(Slot.REQUEST_PCI_DEVICE_OFFSET)] = request.device
      words[at(Slot.REQUEST_PCI_FUNCTION_OFFSET)] = request.function
      words[at(Slot.REQUEST_PCI_REGISTER_OFFSET)] = request.register
      return words
  }
}

/** Whether a request of the schema can stand in a slot: what the schema cannot say about one field. */
const fits = (request: IoRequest): boolean => {
  if ("port" in request) return request.port + request.size <= 0x1_0000
  if ("address" in request) return request.address + request.size <= 2 ** 52
  return (request.register & 3) + request.size <= 4
}

/** A request without the bits of its value that lie above its size. */
const narrowed = (request: IoRequest): IoRequest => {
  switch (request._tag) {
    case "PortWrite":
    case "PciWrite":
      return { ...request, value: Number(BigInt.asUintN(request.size * 8, BigInt(request.value))) }
    case "MmioWrite":
      return { ...request, value: BigInt.asUintN(request.size * 8, request.value) }
    default:
      return request
  }
}

describe("SlotWords", () => {
  it.prop("any 64 words are a valid request or a sentence", [anyWords, VcpuId], ([words, vcpu]) => {
    const decoded = SlotWords.decode(words, vcpu)
    if (typeof decoded === "string") {
      assert.match(decoded, /[a-z]+ .* /)
      assert.notMatch(decoded, /undefined|NaN/)
      return
    }
    assert.isTrue(isRequest(decoded))
    assert.isTrue(fits(decoded))
    assert.deepStrictEqual(decoded, narrowed(decoded))
    assert.notMatch(format(decoded), /undefined|NaN/)
  }, { arbitrary: { runs: 3000 } })

  it.prop("every request that a hypervisor can send is read as it was sent", [IoRequest], ([request]) => {
    const decoded = SlotWords.decode(wordsOf(request), request.vcpu)
    if (fits(request)) assert.deepStrictEqual(decoded, narrowed(request))
    else assert.isString(decoded)
  }, { arbitrary: { runs: 1000 } })

  it.prop("a write to a protected page is an MMIO write", [GuestAddress], ([address]) => {
    const request: IoRequest = { _tag: "MmioWrite", vcpu: VcpuId.make(0), address, size: 4, value: 5n }
    const words = wordsOf(request)
    words[at(Slot.SLOT_TYPE_OFFSET)] = Slot.RequestTypeCode.WriteProtected
    const decoded = SlotWords.decode(words, 0)
    if (fits(request)) assert.deepStrictEqual(decoded, request)
    else assert.isString(decoded)
  })

  it("what is refused is named", () => {
    const port: IoRequest = { _tag: "PortRead", vcpu: VcpuId.make(0), port: 0 as never, size: 1 }
    const changed = (...changes: ReadonlyArray<readonly [offset: number, value: number]>) => {
      const words = wordsOf(port)
      for (const [offset, value] of changes) words[at(offset)] = value
      return SlotWords.decode(words, 0)
    }
    assert.strictEqual(
      changed([Slot.SLOT_TYPE_OFFSET, 4]),
      "type 4 is none of port I/O (0), MMIO (1), PCI configuration (2), write protection (3)"
    )
    assert.strictEqual(
      changed([Slot.REQUEST_DIRECTION_OFFSET, 2]),
      "direction 2 is neither read (0) nor write (1)"
    )
    assert.strictEqual(changed([Slot.REQUEST_SIZE_OFFSET, 3]), "size 3 is not 1, 2, 4 or 8 bytes")
    assert.isString(changed([Slot.REQUEST_SIZE_OFFSET + 4, 1]), "a size above 2^32")
    assert.strictEqual(changed([Slot.REQUEST_SIZE_OFFSET, 8]), "a port access cannot be 8 bytes wide")
    assert.strictEqual(
      changed([Slot.REQUEST_ADDRESS_OFFSET, 0xffff], [Slot.REQUEST_SIZE_OFFSET, 2]),
      "port 0xffff with 2 bytes is not inside the 65536 ports"
    )
    assert.isString(changed([Slot.REQUEST_ADDRESS_OFFSET + 4, 1]), "a 64-bit address into a 2^16 table (CVE-2016-9637)")
    assert.strictEqual(
      changed([Slot.SLOT_TYPE_OFFSET, 1], [Slot.REQUEST_ADDRESS_OFFSET + 4, 0x10_0000]),
      "guest address with high word 0x100000 is not below 2^52"
    )
    assert.strictEqual(
      changed([Slot.SLOT_TYPE_OFFSET, 2], [Slot.REQUEST_PCI_REGISTER_OFFSET, 3], [Slot.REQUEST_SIZE_OFFSET, 2]),
      "PCI 0:0.0 register 0x3 with 2 bytes does not exist"
    )
  })

  const Size = Schema.Literals([1, 2, 4, 8])
  const Answer = Schema.Union([
    Schema.Int,
    Schema.Number,
    Schema.BigInt,
    Schema.Undefined
  ])

  it.prop("an answer is cut to the access, and nothing reads as all-ones", [Answer, Size], ([value, size]) => {
    const low = SlotWords.lowWord(value, size)
    const high = SlotWords.highWord(value, size)
    const bits = size * 8
    assert.isTrue(Number.isInteger(low) && low >= 0 && low < 2 ** Math.min(bits, 32))
    assert.isTrue(Number.isInteger(high) && high >= 0 && high < (size === 8 ? 2 ** 32 : 1))
    const answered = BigInt(high) << 32n | BigInt(low)
    if (value === undefined) assert.strictEqual(answered, (1n << BigInt(bits)) - 1n)
    else if (typeof value === "bigint" || Number.isSafeInteger(value)) {
      assert.strictEqual(answered, BigInt.asUintN(bits, BigInt(value)))
    }
  }, { arbitrary: { runs: 1000 } })
})
