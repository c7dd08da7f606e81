/** The table of interrupt lines that the kernel is given, without a kernel. */
import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import { Errno } from "../../../../src/domain/Errno.ts"
import { IrqRouting, IrqRoutingType } from "../../../../src/layers/kvm/abi/IrqRouting.ts"
import { GsiRoutes } from "../../../../src/layers/kvm/capabilities/GsiRoutes.ts"

const CHIP_LINES = 24
const CHIP_ENTRIES = 40

const message = (data: number) => ({ addressLo: 0xfee0_0000, addressHi: 0, data })

/** What the kernel was last told. */
const kernel = () => {
  let table: Uint8Array = new Uint8Array()
  return {
    result: 0,
    setTable(told: Uint8Array): number {
      table = told
      return this.result
    },
    get entries() {
      return Result.getOrThrow(IrqRouting.decode(table))
    },
    get lines() {
      return this.entries.flatMap(({ gsi, type, u }) =>
        type === IrqRoutingType.MSI ? [[gsi, new DataView(u.buffer).getUint32(8, true)]] : []
      )
    }
  }
}

const make = (mostRoutes = 4096) => {
  const told = kernel()
  return { told, routes: new GsiRoutes((table) => told.setTable(table), mostRoutes) }
}

describe("GSI routes", () => {
  it("are the chips' own, and above them one line for each message", () => {
    const { routes, told } = make()
    assert.strictEqual(routes.add(message(5)), CHIP_LINES)
    assert.strictEqual(routes.add(message(6)), CHIP_LINES + 1)
    assert.deepStrictEqual(told.lines, [[24, 5], [25, 6]])
    const chips = told.entries.filter(({ type }) => type === IrqRoutingType.IRQCHIP).map(({ gsi, u }) => {
      const view = new DataView(u.buffer)
      return `${gsi}: ${view.getUint32(0, true)}.${view.getUint32(4, true)}`
    })
    assert.strictEqual(chips.length, CHIP_ENTRIES)
    // Master, slave and I/O APIC are chips 0, 1 and 2.
    assert.includeMembers(chips, [
      "0: 2.0",
      "0: 0.0",
      "7: 0.7",
      "8: 1.0",
      "15: 1.7",
      "15: 2.15",
      "16: 2.16",
      "23: 2.23"
    ])
  })

  it("give a line back to the next message", () => {
    const { routes, told } = make()
    for (const data of [1, 2, 3]) routes.add(message(data))
    routes.remove(25)
    assert.deepStrictEqual(told.lines, [[24, 1], [26, 3]])
    assert.strictEqual(routes.add(message(4)), 25)
  })

  it("end where the kernel's table does", () => {
    const { routes, told } = make(CHIP_ENTRIES + 2)
    routes.add(message(1))
    routes.add(message(2))
    assert.strictEqual(told.entries.length, CHIP_ENTRIES + 2)
    assert.strictEqual(routes.add(message(3)), -Errno.ENOMEM)
  })

  it("are as they were when the kernel refuses", () => {
    const { routes, told } = make()
    told.result = -Errno.EINVAL
    assert.strictEqual(routes.add(message(1)), -Errno.EINVAL)
    told.result = 0
    assert.strictEqual(routes.add(message(2)), CHIP_LINES)
    assert.deepStrictEqual(told.lines, [[24, 2]])
  })
})
