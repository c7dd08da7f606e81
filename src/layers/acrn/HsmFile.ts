/**
 * An open file of the driver, by the names of its ioctls.
 */
import { HsmIoctl, type HsmIoctlName } from "../../domain/abi/HsmIoctl.ts"
import type { Libc } from "../native/Libc.ts"

/** Each holds one VM. Results are 0 or positive, or a negative errno. */
export interface HsmFile {
  readonly fd: number
  readonly request: (name: HsmIoctlName, argument?: number | Uint8Array) => number
  readonly close: () => void
}

/** A file of the driver, or a negative errno. */
export const openHsm = (libc: Libc, path: string): HsmFile | number => {
  const fd = libc.open(path)
  if (fd < 0) return fd
  return {
    fd,
    request: (name, argument = 0) =>
      typeof argument === "number"
        ? libc.ioctl(fd, HsmIoctl[name], argument)
        : libc.ioctlAt(fd, HsmIoctl[name], argument),
    close: () => {
      libc.close(fd)
    }
  }
}
