/** Operations of one vCPU's program as machine code. */
import type { Operation } from "../GuestProgram.ts"
import * as ConfigWord from "./ConfigWord.ts"
import type { MachineCode } from "./MachineCode.ts"
import * as Work from "./Work.ts"

/** Its data lie at `dataAddress`; where the results end goes to `resultEnd`. */
export class Emitter {
  readonly code: MachineCode
  readonly data: Array<number> = []
  private readonly dataAddress: number
  private readonly resultEnd: number

  constructor(code: MachineCode, dataAddress: number, resultEnd: number) {
    this.code = code
    this.dataAddress = dataAddress
    this.resultEnd = resultEnd
  }

  all(operations: ReadonlyArray<Operation>): void {
    for (const operation of operations) this.one(operation)
  }

  halt(): void {
    this.code.storeDestination(this.resultEnd)
    this.code.halt()
  }

  private one(operation: Operation): void {
    const { code, data } = this
    switch (operation._tag) {
      case "PortIn":
        return code.portIn(operation.port, operation.size)
      case "PortOut":
        this.accumulate(operation.value)
        return code.portOut(operation.port, operation.size)
      case "StringIn":
        code.stringIn(operation.port, operation.size, operation.count)
        return code.alignDestination()
      case "StringOut": {
        const { bytes, port: to, size } = operation
        code.stringOut(to, size, bytes.length / size, this.dataAddress + data.length)
        for (const byte of bytes) data.push(byte)
        return
      }
      case "Load":
        return code.load(operation.address, operation.size)
      case "Store":
        this.accumulate(operation.value)
        return code.store(operation.address, operation.size)
      case "PciRead":
        code.selectConfig(ConfigWord.of(operation))
        return code.portIn(ConfigWord.dataPort(operation), operation.size)
      case "PciWrite":
        this.accumulate(operation.value)
        code.selectConfig(ConfigWord.of(operation))
        return code.portOut(ConfigWord.dataPort(operation), operation.size)
      case "Work":
        return code.repeat(operation.rounds, () => code.workRound(Work.ROTATION, Work.ADDEND, Work.MASK))
      case "Keep":
        return code.appendAccumulator(operation.size ?? 4)
      case "Code":
        return code.raw(operation.bytes)
      case "Halt":
        return this.halt()
      case "Loop":
        return code.repeat(operation.times, () => this.all(operation.body))
    }
  }

  private accumulate(value: number | bigint | undefined): void {
    if (value !== undefined) this.code.setAccumulator(value)
  }
}
