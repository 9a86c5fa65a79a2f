/** A wire to the server that can be cut. */

import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";

export class Wire {
  private readonly open = new Set<Socket>();

  private constructor(private readonly listener: Server) {}

  static async to(url: string): Promise<Wire> {
    const { hostname, port } = new URL(url);
    const listener = createServer((near) => {
      const far = connect(Number(port), hostname);
      near.pipe(far).pipe(near);
      for (const socket of [near, far]) {
        wire.open.add(socket);
        socket.on("close", () => wire.open.delete(socket));
        socket.on("error", () => [near, far].forEach((end) => end.destroy()));
      }
    });
    const wire = new Wire(listener);
    await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve));
    return wire;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.listener.address() as AddressInfo).port}`;
  }

  /** Breaks every connection; new ones work. Gives how many there were. */
  cut(): number {
    const count = this.open.size;
    for (const socket of this.open) socket.destroy();
    return count;
  }

  async close(): Promise<void> {
    this.cut();
    await new Promise((resolve) => this.listener.close(resolve));
  }
}
