/** The ports of PCI's configuration mechanism 1, whose accesses depend on a register that all vCPUs of a VM share. */

export const CONFIG_DATA_PORT = 0xcfc
export const LAST_CONFIG_PORT = 0xcff
const CONFIG_ADDRESS_PORT = 0xcf8

/** Whether a port access meets any of them. */
export const meetsConfigPorts = ({ port, size }: { readonly port: number; readonly size: number }): boolean =>
  port <= LAST_CONFIG_PORT && port + size > CONFIG_ADDRESS_PORT
