import { join } from "node:path"
import { defineConfig } from "vitest/config"

const repository = join(import.meta.dirname, "../..")

// Inside Upcall's repository "upcall" means its sources. A project that has the package needs nothing of this file.
export default defineConfig({
  cacheDir: join(repository, "node_modules/.vite"),
  resolve: { alias: [{ find: /^upcall\/(.*)$/, replacement: join(repository, "src/$1.ts") }] }
})
