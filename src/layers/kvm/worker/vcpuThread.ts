/**
 * A thread that runs vCPUs, one after the other: it only enters the guest, everything else is the dispatcher's.
 *
 * It loads little, Effect not at all: a VM waits for its threads to start.
 */
import { parentPort } from "node:worker_threads"
import { loadLibc } from "../../native/Libc.ts"
import { runVcpu } from "../mailbox/runVcpu.ts"
import type { VcpuJob, VcpuThreadMessage } from "./messages.ts"

const port = parentPort!
const say = (message: VcpuThreadMessage) => port.postMessage(message)

const libc = await loadLibc()

port.on("message", ({ fd, run, spins, vcpu, words }: VcpuJob) => {
  runVcpu({ words, vcpu, spins, enter: () => libc.ioctl(fd, run, 0) })
  say("Left")
})
say({ threadId: libc.threadId() })
