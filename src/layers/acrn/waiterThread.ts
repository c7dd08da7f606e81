/**
 * A thread that waits inside the driver, for one VM after the other. A VM may have to wait for it to start, so it loads
 * as little as it can.
 */
import { parentPort } from "node:worker_threads"
import { PAGE_BYTES } from "../../domain/Limits.ts"
import { loadLibc } from "../native/Libc.ts"
import { Lookout } from "./Lookout.ts"
import type { WaiterJob, WaiterMessage } from "./waiterWords.ts"
import { waitForRequests } from "./waitForRequests.ts"

const port = parentPort!
const say = (message: WaiterMessage) => port.postMessage(message)

const libc = await loadLibc()

port.on("message", ({ attachRequest, fd, page, pageOffset, places, vcpus, words: buffer }: WaiterJob) => {
  const words = new Int32Array(buffer)
  const result = waitForRequests({
    words,
    lookout: new Lookout(words, new Int32Array(page, pageOffset, PAGE_BYTES / 4), vcpus, places),
    vcpus,
    attach: () => libc.ioctl(fd, attachRequest, 0),
    tell: (vcpu) => say({ vcpu }),
    threadId: libc.threadId
  })
  say({ result })
})
say("Ready")
