/** A vCPU that comes to its end while its VM is being paused: its thread is played here, step by step. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import type { EndReason } from "../../../../src/domain/EndReason.ts"
import { Errno } from "../../../../src/domain/Errno.ts"
import { ExitReason } from "../../../../src/layers/kvm/abi/ExitReason.ts"
import { EXIT_REASON_OFFSET } from "../../../../src/layers/kvm/abi/KvmRun.ts"
import { RunnerNext, RunnerSide } from "../../../../src/layers/kvm/mailbox/RunnerSide.ts"
import { Spin } from "../../../../src/layers/kvm/mailbox/Spin.ts"
import { VcpuFile } from "../../../../src/layers/kvm/VcpuFile.ts"
import type { VcpuJob } from "../../../../src/layers/kvm/worker/messages.ts"
import type { VcpuThread } from "../../../../src/layers/kvm/worker/Threads.ts"
import { WorkerPlacement } from "../../../../src/layers/kvm/worker/WorkerPlacement.ts"
import type { Libc } from "../../../../src/layers/native/Libc.ts"

const turnOfTheHost = Effect.callback<void>((resume) => {
  setImmediate(() => resume(Effect.void))
})

/** A placement with one vCPU whose thread does what the test says. */
const make = () => {
  const ends: Array<EndReason> = []
  // Of a vCPU that cannot be asked for its registers.
  const libc = { ioctlAt: () => -Errno.EINVAL } as unknown as Libc
  const file = new VcpuFile(libc, 0, -1, { bytes: new Uint8Array(3 * 4096), unmap: () => undefined })
  let runner: RunnerSide | undefined
  const thread: VcpuThread = {
    id: 1,
    run: ({ vcpu, words }: VcpuJob) => {
      runner = new RunnerSide(words, vcpu, new Spin({ most: 0, tries: false }), (word) => Atomics.notify(words, word))
    },
    release: () => undefined
  }
  const placement = new WorkerPlacement(
    { vmId: 1, vcpus: [file], raise: () => undefined, onEnd: (reason) => ends.push(reason) },
    {
      libc: { interruptThread: () => undefined },
      threads: { take: () => Promise.resolve(thread), close: () => Promise.resolve() },
      spins: { vcpu: 0, dispatcher: 0 }
    }
  )
  const stepUntil = (next: number) =>
    Effect.gen(function*() {
      for (let steps = 0; steps < 100; steps++) {
        if (runner?.step() === next) return
        yield* turnOfTheHost
      }
      assert.fail("the thread of the vCPU does not come there")
    })
  placement.start([0])
  placement.run()
  return {
    ends,
    placement,
    /** The vCPU enters the guest; the VM is paused; only then the vCPU leaves the guest, for this reason. */
    pauseBefore: (exit: number) =>
      Effect.gen(function*() {
        yield* stepUntil(RunnerNext.Enter)
        const pausing = yield* Effect.forkChild(placement.pause, { startImmediately: true })
        file.words[EXIT_REASON_OFFSET / 4] = exit
        runner?.exited(0)
        yield* stepUntil(RunnerNext.Sleep)
        yield* Fiber.join(pausing)
      })
  }
}

const settled = Effect.repeat(turnOfTheHost, { times: 20 })

describe("a vCPU that comes to its end while its VM is being paused", () => {
  for (
    const [name, exit, expected] of [
      ["halts", ExitReason.HLT, "Halted"],
      ["shuts down", ExitReason.SHUTDOWN, "Shutdown"]
    ] as const
  ) {
    it.live(`${name}, and the VM ends when it is to go on`, () =>
      Effect.gen(function*() {
        const { ends, pauseBefore, placement } = make()
        yield* pauseBefore(exit)
        yield* settled
        assert.deepStrictEqual(ends, [])
        placement.run()
        yield* settled
        assert.deepStrictEqual(ends.map(({ _tag }) => _tag), [expected])
      }))

    it.live(`${name}, and it does not matter once the vCPU has other registers`, () =>
      Effect.gen(function*() {
        const { ends, pauseBefore, placement } = make()
        yield* pauseBefore(exit)
        placement.discard(0)
        placement.run()
        yield* settled
        assert.deepStrictEqual(ends, [])
      }))

    it.live(`${name}, and it does not matter once the VM was reset`, () =>
      Effect.gen(function*() {
        const { ends, pauseBefore, placement } = make()
        yield* pauseBefore(exit)
        placement.abandon()
        placement.start([0])
        placement.run()
        yield* settled
        assert.deepStrictEqual(ends, [])
      }))
  }
})
