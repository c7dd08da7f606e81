import { assert, describe, it } from "@effect/vitest"
import { flat, HLT, later, le32, runToEnd } from "./harness.ts"

describe("device accesses", () => {
  it("makes port accesses of 1, 2 and 4 bytes", async () => {
    const seen: Array<string> = []
    const cpu = await flat([
      [0xba, ...le32(0x1234)], // mov edx, 0x1234
      [0xb8, ...le32(0x8899_aabb)], // mov eax, ...
      0xee, // out dx, al
      [0x66, 0xef], // out dx, ax
      0xef, // out dx, eax
      [0xe6, 0x42], // out 0x42, al
      0xec, // in al, dx
      [0x66, 0xed], // in ax, dx
      0xed, // in eax, dx
      HLT
    ], {
      onPortRead: (port, size) => {
        seen.push(`in ${port.toString(16)} ${size}`)
        return 0xffff_ffff
      },
      onPortWrite: (port, size, value) => {
        seen.push(`out ${port.toString(16)} ${size} ${value.toString(16)}`)
      }
    })
    await cpu.run()
    assert.deepStrictEqual(seen, [
      "out 1234 1 bb",
      "out 1234 2 aabb",
      "out 1234 4 8899aabb",
      "out 42 1 bb",
      "in 1234 1",
      "in 1234 2",
      "in 1234 4"
    ])
    assert.strictEqual(cpu.getRegisters().gprs.rax, 0xffff_ffffn)
    cpu.dispose()
  })

  it("lets only the low bytes of an answer count", async () => {
    // in al, dx; mov bl, al; in ax, dx; mov [0x5000], ...
    const cpu = await flat([0xec, 0x88, 0xc3, 0x66, 0xed, HLT], { onPortRead: () => 0x1_2345_6789 }, {
      rax: 0xaaaa_aaaan
    })
    await cpu.run()
    assert.strictEqual(cpu.getRegisters().gprs.rbx, 0x89n)
    assert.strictEqual(cpu.getRegisters().gprs.rax, 0xaaaa_6789n)
    cpu.dispose()
  })

  it("repeats OUTSB and INSB, over a page boundary and with waits", async () => {
    for (const wait of [false, true]) {
      const text = "Hello, upcall!"
      let out = ""
      let next = 0
      const cpu = await flat([
        [0xba, ...le32(0xe9)], // mov edx, 0xe9
        [0xbe, ...le32(0x4ffa)], // mov esi, text
        [0xb9, ...le32(text.length)], // mov ecx, length
        [0xf3, 0x6e], // rep outsb
        [0xbf, ...le32(0x5ffa)], // mov edi, ...
        [0xb9, ...le32(text.length)],
        [0xf3, 0x6c], // rep insb
        HLT
      ], {
        onPortRead: () => {
          const answer = text.charCodeAt(next++)
          return wait ? Promise.resolve(answer) : answer
        },
        onPortWrite: (_port, _size, value) => {
          out += String.fromCharCode(value)
          return wait ? Promise.resolve() : undefined
        }
      })
      cpu.memory.write(0x4ffa, new TextEncoder().encode(text))
      assert.deepStrictEqual(await runToEnd(cpu), { _tag: "Dead" })
      assert.strictEqual(out, text)
      assert.strictEqual(new TextDecoder().decode(cpu.memory.read(0x5ffa, text.length)), text)
      assert.strictEqual(cpu.suspensions, wait ? 2 * text.length : 0)
      cpu.dispose()
    }
  })

  it("makes MMIO accesses, splitting what the core splits", async () => {
    for (const wait of [false, true]) {
      const seen: Array<string> = []
      const cpu = await flat([
        [0xbb, ...le32(0xd000_0000)], // mov ebx, 0xd0000000
        [0x88, 0x03], // mov [ebx], al
        [0x66, 0x89, 0x43, 0x04], // mov [ebx+4], ax
        [0x89, 0x43, 0x08], // mov [ebx+8], eax
        [0x8a, 0x0b], // mov cl, [ebx]
        [0x66, 0x8b, 0x4b, 0x04], // mov cx, [ebx+4]
        [0x8b, 0x4b, 0x08], // mov ecx, [ebx+8]
        [0x01, 0x43, 0x10], // add [ebx+16], eax
        [0x0f, 0x6f, 0x43, 0x18], // movq mm0, [ebx+24]
        [0x0f, 0x7f, 0x43, 0x20], // movq [ebx+32], mm0
        [0x0f, 0x11, 0x43, 0x40], // movups [ebx+64], xmm0
        HLT
      ], {
        onMmioRead: (address, size) => {
          const answer = address & 0xff
          seen.push(`r${size} ${address.toString(16)}`)
          return wait ? Promise.resolve(answer) : answer
        },
        onMmioWrite: (address, size, value) => {
          seen.push(`w${size} ${address.toString(16)}=${value.toString(16)}`)
          return wait ? Promise.resolve() : undefined
        }
      }, { rax: 0x8765_4321n })
      const registers = cpu.getRegisters()
      cpu.setRegisters({ ...registers, cr4: 0x600n })
      assert.deepStrictEqual(await runToEnd(cpu), { _tag: "Dead" })
      assert.deepStrictEqual(seen, [
        "w1 d0000000=21",
        "w2 d0000004=4321",
        "w4 d0000008=87654321",
        "r1 d0000000",
        "r1 d0000004",
        "r1 d0000005",
        "r4 d0000008",
        "r4 d0000010",
        "w4 d0000010=87654331",
        "r4 d0000018",
        "r4 d000001c",
        "w4 d0000020=18",
        "w4 d0000024=1c",
        "w4 d0000040=0",
        "w4 d0000044=0",
        "w4 d0000048=0",
        "w4 d000004c=0"
      ])
      assert.strictEqual(cpu.getRegisters().gprs.rcx, 8n)
      cpu.dispose()
    }
  })

  it("waits within an instruction while other CPUs run", async () => {
    const answer = later<number>()
    // in eax, dx; mov ebx, eax; hlt
    const waiting = await flat([0xed, 0x89, 0xc3, HLT], { onPortRead: () => answer.promise })
    const end = waiting.run()
    assert.strictEqual(waiting.status, "Running")
    const other = await flat([0xb8, ...le32(7), 0xed, HLT], { onPortRead: () => Promise.resolve(99) })
    assert.deepStrictEqual(await other.run(), { _tag: "Dead" })
    assert.strictEqual(other.getRegisters().gprs.rax, 99n)
    assert.strictEqual(waiting.status, "Running")
    answer.resolve(0x1357)
    assert.deepStrictEqual(await end, { _tag: "Dead" })
    assert.strictEqual(waiting.getRegisters().gprs.rbx, 0x1357n)
    assert.strictEqual(waiting.suspensions, 1)
    waiting.dispose()
    other.dispose()
  })

  it("keeps order and values over many accesses of a compiled loop, with some that wait", async () => {
    // mov ecx, n; L: in eax, dx; add ebx, eax; mov eax, [0xd0000000]; add esi, eax; dec ecx; jnz L; hlt
    const n = 60_000
    let sequence = 0
    let waits = 0
    const answer = (): number | Promise<number> => {
      const value = ++sequence
      if (value % 97 === 0) {
        waits += 1
        return Promise.resolve(value)
      }
      return value
    }
    const cpu = await flat(
      [0xb9, ...le32(n), 0xed, 0x01, 0xc3, 0xa1, ...le32(0xd000_0000), 0x01, 0xc6, 0x49, 0x75, 0xf3, HLT],
      { onPortRead: answer, onMmioRead: answer }
    )
    assert.deepStrictEqual(await runToEnd(cpu), { _tag: "Dead" })
    const { rbx, rsi } = cpu.getRegisters().gprs
    assert.strictEqual(sequence, 2 * n)
    assert.strictEqual(rbx, BigInt(n * n) & 0xffff_ffffn)
    assert.strictEqual(rsi, BigInt(n * (n + 1)) & 0xffff_ffffn)
    assert.strictEqual(cpu.suspensions, waits)
    cpu.dispose()
  })
})
