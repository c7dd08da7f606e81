/** The oracle itself, rule by rule, on answers that are written down here. */
import { assert, describe, it } from "@effect/vitest"
import { Port } from "../../../src/domain/Address.ts"
import * as IoRange from "../../../src/domain/IoRange.ts"
import type { IoRequest } from "../../../src/domain/IoRequest.ts"
import * as GuestProgram from "../../../src/testing/GuestProgram.ts"
import * as Reference from "../../../src/testing/laws/Reference.ts"
import * as World from "../../../src/testing/laws/World.ts"

type Operation = GuestProgram.Operation

const world: World.World = {
  seed: 3,
  clients: [
    { name: "alpha", ranges: [IoRange.ports(0x300, 0x303), IoRange.ports(0x304, 0x307)], answers: World.atOnce },
    { name: "beta", ranges: [IoRange.mmio(0x1000, 0x1003), IoRange.pciFunction(0, 1, 0)], answers: World.atOnce },
    { name: "gamma", ranges: [IoRange.pciAny], answers: { _tag: "Dies" } }
  ]
}
const withDefault: World.World = { ...world, default: World.atOnce }

const port = (at: number, size: number): IoRequest => ({ _tag: "PortRead", vcpu: 0, port: at, size }) as never
const write = (at: number, size: number, value: number): IoRequest =>
  ({ _tag: "PortWrite", vcpu: 0, port: at, size, value }) as never
const memory = (address: number, size: number): IoRequest => ({ _tag: "MmioRead", vcpu: 0, address, size }) as never
const pci = (device: number): IoRequest =>
  ({ _tag: "PciRead", vcpu: 0, bus: 0, device, function: 0, register: 0, size: 4 }) as never

describe("who gets a request", () => {
  const cases: ReadonlyArray<readonly [string, IoRequest, string]> = [
    ["a range's first byte", port(0x300, 1), "alpha"],
    ["a whole range", port(0x300, 4), "alpha"],
    ["a range's last byte", port(0x303, 1), "alpha"],
    ["over the end of a range, though the client's next one begins there", port(0x302, 4), "nobody"],
    ["over the end of all", port(0x307, 2), "nobody"],
    ["before a range", port(0x2ff, 2), "nobody"],
    ["all of a memory range", memory(0x1000, 4), "beta"],
    ["more than a memory range", memory(0x1000, 8), "nobody"],
    ["a port's number as an address", memory(0x300, 1), "nobody"],
    ["an address's number as a port", port(0x1000, 1), "nobody"],
    ["a PCI function", pci(1), "beta"],
    ["the rest of PCI", pci(2), "gamma"]
  ]
  for (const [what, request, client] of cases) {
    it(what, () => {
      assert.strictEqual(Reference.clientOf(world, request), client === "nobody" ? "(nobody)" : client)
      assert.strictEqual(Reference.clientOf(withDefault, request), client === "nobody" ? "default" : client)
    })
  }
})

describe("what a request is answered with", () => {
  it("is cut to the access", () => {
    const said = Number(World.makeValues(3)("alpha", port(0x300, 2)))
    assert.isAbove(said, 0xffff)
    assert.strictEqual(new Reference.Dispatcher(world).serve(port(0x300, 2)).answer, said & 0xffff)
  })

  it("is all-ones from nobody, and from a client that goes wrong", () => {
    const dispatcher = new Reference.Dispatcher(world)
    assert.strictEqual(dispatcher.serve(port(0x60, 2)).answer, 0xffff)
    assert.strictEqual(dispatcher.serve(memory(0, 8)).answer, 0xffff_ffff_ffff_ffffn)
    assert.strictEqual(dispatcher.serve(pci(3)).answer, 0xffff_ffff)
  })

  it("is nothing for a write", () => {
    assert.deepStrictEqual(new Reference.Dispatcher(world).serve(write(0x300, 1, 5)), {
      client: "alpha",
      request: write(0x300, 1, 5)
    })
  })
})

describe("PCI's address register", () => {
  const CONFIG = "(PCI config address)"

  it("is answered by the dispatcher when 4 bytes wide, and is a port otherwise", () => {
    const dispatcher = new Reference.Dispatcher(world)
    assert.strictEqual(dispatcher.serve(port(0xcf8, 4)).answer, 0)
    assert.strictEqual(dispatcher.serve(write(0xcf8, 4, 0x1234)).client, CONFIG)
    assert.deepInclude(dispatcher.serve(port(0xcf8, 4)), { client: CONFIG, answer: 0x1234 })
    assert.strictEqual(dispatcher.serve(port(0xcf8, 2)).client, "(nobody)")
    assert.strictEqual(dispatcher.serve(port(0xcf9, 1)).client, "(nobody)")
  })

  it("selects nothing while it is not enabled", () => {
    const dispatcher = new Reference.Dispatcher(world)
    assert.deepInclude(dispatcher.serve(port(0xcfe, 2)), { client: CONFIG, answer: 0xffff, request: port(0xcfe, 2) })
    assert.deepStrictEqual(dispatcher.serve(write(0xcfc, 4, 1)), { client: CONFIG, request: write(0xcfc, 4, 1) })
  })

  it("selects bus, device, function and register, the extended one too", () => {
    const dispatcher = new Reference.Dispatcher(world)
    dispatcher.serve(write(0xcf8, 4, 0x8a12_fd48))
    const at = { vcpu: 0, bus: 0x12, device: 31, function: 5, register: 0xa48 + 2, size: 2 }
    assert.deepStrictEqual(dispatcher.serve(port(0xcfe, 2)).request, { _tag: "PciRead", ...at } as never)
    assert.deepStrictEqual(
      dispatcher.serve(write(0xcfe, 2, 7)).request,
      { _tag: "PciWrite", ...at, value: 7 } as never
    )
  })

  it("has a window of 4 bytes, which no access leaves", () => {
    const dispatcher = new Reference.Dispatcher(world)
    dispatcher.serve(write(0xcf8, 4, 0x8000_0800))
    assert.strictEqual(dispatcher.serve(port(0xcff, 1)).client, "beta")
    assert.deepStrictEqual(dispatcher.serve(port(0xcfd, 4)).request, port(0xcfd, 4))
    assert.deepStrictEqual(dispatcher.serve(port(0xcfb, 2)).request, port(0xcfb, 2))
  })
})

describe("a program", () => {
  const at = Port.make(0x60)
  const outcome = (operations: ReadonlyArray<Operation>, piece?: Reference.FirstPiece) =>
    Reference.run(world, [operations], piece)[0]!
  const requests = (operations: ReadonlyArray<Operation>, piece?: Reference.FirstPiece) =>
    outcome(operations, piece).served.map(({ request }) => request)

  it("keeps the accumulator's other bytes where it reads few", () => {
    const { accumulator, results } = outcome([
      { _tag: "PortOut", port: at, size: 4, value: 0x1122_3344 },
      { _tag: "PortIn", port: at, size: 2 },
      { _tag: "Keep" }
    ])
    assert.strictEqual(accumulator, 0x1122_ffffn)
    assert.deepStrictEqual([...results], [0xff, 0xff, 0x22, 0x11])
  })

  it("clears the accumulator's upper half where it reads or writes 4 bytes, as 64-bit code does", () => {
    const store: Operation = { _tag: "Store", address: 0x1000, size: 8, value: 0x1122_3344_5566_7788n }
    const keep: Operation = { _tag: "Keep", size: 8 }
    const little = (value: bigint) => [...new Uint8Array(new BigUint64Array([value]).buffer)]
    const kept = (...operations: ReadonlyArray<Operation>) => [...outcome([...operations, keep]).results]
    assert.deepStrictEqual(kept(store), little(0x1122_3344_5566_7788n))
    assert.deepStrictEqual(kept(store, { _tag: "PortIn", port: at, size: 1 }), little(0x1122_3344_5566_77ffn))
    assert.deepStrictEqual(kept(store, { _tag: "PortIn", port: at, size: 2 }), little(0x1122_3344_5566_ffffn))
    assert.deepStrictEqual(kept(store, { _tag: "PortIn", port: at, size: 4 }), little(0xffff_ffffn))
    assert.deepStrictEqual(kept(store, { _tag: "Load", address: 0, size: 8 }), little(2n ** 64n - 1n))
    assert.deepStrictEqual(kept(store, { _tag: "PortOut", port: at, size: 1, value: 5 }), little(5n))
    assert.deepStrictEqual(kept(store, { _tag: "Store", address: 0, size: 8, value: 6 }), little(6n))
    assert.deepStrictEqual(
      kept(store, { _tag: "Work", rounds: 3 }),
      little(BigInt(GuestProgram.work(0x5566_7788, 3)))
    )
    assert.deepStrictEqual(requests([store, { _tag: "Store", address: 0x2000, size: 8 }]), [
      { ...memory(0x1000, 8), _tag: "MmioWrite", value: 0x1122_3344_5566_7788n } as never,
      { ...memory(0x2000, 8), _tag: "MmioWrite", value: 0x1122_3344_5566_7788n } as never
    ])
  })

  it("writes the low bytes of a value", () => {
    assert.deepStrictEqual(
      requests([{ _tag: "PortOut", port: at, size: 1, value: 0x1122_3344 }, { _tag: "PortOut", port: at, size: 2 }]),
      [write(0x60, 1, 0x44), write(0x60, 2, 0x3344)]
    )
  })

  it("makes an access of each element of a string, and fills the results up to a word", () => {
    const operations: ReadonlyArray<Operation> = [
      { _tag: "StringIn", port: at, size: 2, count: 3 },
      { _tag: "StringOut", port: at, size: 2, bytes: Uint8Array.of(1, 2, 3, 4) }
    ]
    assert.deepStrictEqual(requests(operations), [
      port(0x60, 2),
      port(0x60, 2),
      port(0x60, 2),
      write(0x60, 2, 0x0201),
      write(0x60, 2, 0x0403)
    ])
    assert.deepStrictEqual([...outcome(operations).results], [255, 255, 255, 255, 255, 255, 0, 0])
  })

  it("loops, and ends at a halt", () => {
    const keep: Operation = { _tag: "Keep" }
    const loop: Operation = { _tag: "Loop", times: 2, body: [keep, { _tag: "Loop", times: 3, body: [keep] }] }
    assert.strictEqual(outcome([loop]).results.length, 4 * 8)
    assert.strictEqual(
      outcome([keep, { _tag: "Loop", times: 3, body: [keep, { _tag: "Halt" }] }, keep]).results.length,
      8
    )
  })

  it("reaches PCI by two port accesses", () => {
    assert.deepStrictEqual(
      requests([{ _tag: "PciRead", bus: 1, device: 2, function: 3, register: 0x10d, size: 1 }]),
      [
        write(0xcf8, 4, 0x8101_130c),
        { _tag: "PciRead", vcpu: 0, bus: 1, device: 2, function: 3, register: 0x10d, size: 1 } as never
      ]
    )
  })

  it("makes no request of bytes beyond the last port", () => {
    const { accumulator, served } = outcome([{ _tag: "PortIn", port: Port.make(0xffff), size: 2 }])
    assert.deepStrictEqual(served, [])
    assert.strictEqual(accumulator, 0xffffn)
  })

  it("reads memory in the pieces that a hypervisor makes, with the same result", () => {
    const load: Operation = { _tag: "Load", address: 0x1000, size: 4 }
    assert.deepStrictEqual(requests([load]), [memory(0x1000, 4)])
    assert.deepStrictEqual(
      requests([load], Reference.byteByByte),
      [memory(0x1000, 1), memory(0x1001, 1), memory(0x1002, 1), memory(0x1003, 1)]
    )
    const seen = [{ client: "beta", request: memory(0x1000, 2) }, { client: "beta", request: memory(0x1002, 2) }]
    assert.deepStrictEqual(requests([load], Reference.inPiecesOf([seen])), seen.map(({ request }) => request))
    assert.strictEqual(
      outcome([load], Reference.byteByByte).accumulator,
      outcome([load]).accumulator
    )
  })

  it("takes pieces that are not of its access for none", () => {
    const load: Operation = { _tag: "Load", address: 0x1000, size: 2 }
    for (const other of [memory(0x1000, 4), memory(0x1001, 1), write(0x60, 1, 0)]) {
      assert.deepStrictEqual(
        requests([load], Reference.inPiecesOf([[{ client: "beta", request: other }]])),
        [memory(0x1000, 2)]
      )
    }
  })

  it("has no machine code of its own", () => {
    assert.throws(() => outcome([{ _tag: "Code", bytes: Uint8Array.of(0x90) }]), /not machine code/)
  })
})

describe("two lists of served requests", () => {
  const served = (answer: number): Reference.Served => ({ client: "alpha", request: port(0x300, 1), answer })

  it("part at the first that is not the same", () => {
    assert.isUndefined(Reference.firstDifference([served(1), served(2)], [served(1), served(2)]))
    assert.strictEqual(
      Reference.firstDifference([served(1), served(2)], [served(1), served(3)]),
      "request 1 must be\n  alpha answered 0x2: read 1 byte from port 0x300 (vCPU 0)\nbut was\n" +
        "  alpha answered 0x3: read 1 byte from port 0x300 (vCPU 0)"
    )
    assert.match(Reference.firstDifference([served(1)], [])!, /but was\n {2}none/)
    assert.match(Reference.firstDifference([], [served(1)])!, /must be\n {2}none/)
  })
})
