/** Starts the real server on a free port, with the mini model or one that follows a script, and reads its counters. */

import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

const root = resolve(import.meta.dirname, "..");
const built = join(process.env.CARGO_TARGET_DIR ?? join(root, "target"), "release");
const binary = process.env.E2E_BINARY ?? join(built, "xverse-chat");
const scripted = process.env.E2E_SCRIPTED ?? join(built, "examples", "scripted_server");
const site = resolve(process.env.E2E_SITE ?? join(root, "target", "site"));
const model = resolve(process.env.E2E_MODEL ?? join(root, "models", "xverse-mini"));

/** Long enough that there is a middle to interrupt, short enough to wait for the end. */
export const STEP_MS = 20;

const START_MS = 60_000;
const STOP_MS = 15_000;

export class Server {
  private constructor(
    readonly url: string,
    private readonly process: ChildProcess,
    private readonly folder: string,
  ) {}

  /** With these flags besides the usual ones. */
  static async start(...flags: string[]): Promise<Server> {
    const folder = mkdtempSync(join(tmpdir(), "xverse-end2end-"));
    const config = join(folder, "Leptos.toml");
    writeFileSync(config, settings());
    const args = ["--config", config, "--data_dir", join(folder, "data"), "--port", "0", "--model_path", model, ...flags];
    return Server.run(binary, args, folder);
  }

  /** One that answers with what it was asked, a character every so many milliseconds. */
  static async startScripted(stepMs: number): Promise<Server> {
    const folder = mkdtempSync(join(tmpdir(), "xverse-end2end-"));
    return Server.run(scripted, ["--site", site, "--data_dir", join(folder, "data"), "--step_ms", `${stepMs}`], folder);
  }

  private static async run(program: string, args: string[], folder: string): Promise<Server> {
    const started = spawn(program, args, { cwd: root, stdio: ["ignore", "pipe", "pipe"] });
    const url = await announcedUrl(program, started);
    const server = new Server(url, started, folder);
    await server.ready();
    return server;
  }

  async stop(): Promise<void> {
    const ended = new Promise((resolve) => this.process.once("exit", resolve));
    this.process.kill("SIGTERM");
    const timer = setTimeout(() => this.process.kill("SIGKILL"), STOP_MS);
    await ended;
    clearTimeout(timer);
    rmSync(this.folder, { recursive: true, force: true });
  }

  /** A counter or gauge without labels, named without `xverse_`. */
  async metric(name: string): Promise<number> {
    const text = await (await fetch(`${this.url}/metrics`)).text();
    const line = text.split("\n").find((line) => line.startsWith(`xverse_${name} `));
    if (line === undefined) throw new Error(`no metric xverse_${name} in:\n${text}`);
    return Number(line.split(" ")[1]);
  }

  private async ready(): Promise<void> {
    const deadline = Date.now() + START_MS;
    while (!(await fetch(`${this.url}/readyz`)).ok) {
      if (Date.now() > deadline) throw new Error("the model did not load in time");
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

/** The project's own settings with another pace and an absolute site folder. */
function settings(): string {
  const changed = readFileSync(join(root, "Leptos.toml"), "utf8")
    .replace(/^site-root = .*$/m, `site-root = ${JSON.stringify(site)}`)
    .replace(/^min_step_ms = .*$/m, `min_step_ms = ${STEP_MS}`)
    // A test asks as fast as it can.
    .replace(/^answers_burst = .*$/m, "answers_burst = 1000");
  if (!changed.includes(site) || !changed.includes(`min_step_ms = ${STEP_MS}`)) {
    throw new Error("Leptos.toml has no site-root or no min_step_ms to change");
  }
  return changed;
}

function announcedUrl(program: string, started: ChildProcess): Promise<string> {
  return new Promise((resolve, reject) => {
    let said = "";
    const timer = setTimeout(() => reject(new Error(`the server announced no address:\n${said}`)), START_MS);
    const listen = (chunk: Buffer) => {
      said += chunk.toString();
      const url = /listening on (http:\/\/\S+)/.exec(said)?.[1];
      if (url !== undefined) {
        clearTimeout(timer);
        resolve(url);
      }
    };
    started.stdout?.on("data", listen);
    started.stderr?.on("data", listen);
    started.once("error", (error) => reject(new Error(`${program} did not start: ${error.message}`)));
    started.once("exit", (code) => reject(new Error(`the server ended with ${code}:\n${said}`)));
  });
}
