/** Runs inside: tells that Node, koffi and the device are there. */
import koffi from "koffi"
import { constants, openSync } from "node:fs"

const libc = koffi.load("libc.so.6")
const getpid: () => number = libc.func("int getpid()")
const fd = openSync("/dev/acrn_hsm", constants.O_RDWR)
console.log(JSON.stringify({
  node: process.versions.node,
  device: fd > 0,
  koffi: getpid() === process.pid,
  arguments: process.argv.slice(2)
}))
