# SPDX-License-Identifier: Apache-2.0
"""A server of Dovecot's authentication protocol 1.1, which smtpd asks about logins."""
import base64
import socketserver
import threading


class SASLServer:
    """Knows `users`, a dictionary of passwords. `mechanisms` are those that smtpd offers to clients."""

    def __init__(self, users, mechanisms=("PLAIN", "LOGIN")):
        server = self
        self.users = users
        self.mechanisms = mechanisms

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                mechanisms = "".join(f"MECH\t{name}\tplaintext\n" for name in server.mechanisms)
                self.wfile.write(f"VERSION\t1\t1\n{mechanisms}SPID\t1\nCUID\t1\nCOOKIE\t{'0' * 32}\nDONE\n".encode())
                steps = {}
                for line in self.rfile:
                    verb, *fields = line.decode().rstrip("\n").split("\t")
                    if verb == "AUTH" and fields[1] == "LOGIN":
                        steps[fields[0]] = []
                        self.ask(fields[0], "Username:")
                    elif verb == "AUTH":
                        response = next(field[5:] for field in fields if field.startswith("resp="))
                        self.judge(fields[0], *base64.b64decode(response).decode().split("\0")[1:])
                    elif verb == "CONT":
                        steps[fields[0]].append(base64.b64decode(fields[1]).decode())
                        if len(steps[fields[0]]) == 1:
                            self.ask(fields[0], "Password:")
                        else:
                            self.judge(fields[0], *steps.pop(fields[0]))

            def ask(self, number, prompt):
                self.wfile.write(f"CONT\t{number}\t{base64.b64encode(prompt.encode()).decode()}\n".encode())

            def judge(self, number, user, password):
                verdict = "OK" if server.users.get(user) == password else "FAIL"
                self.wfile.write(f"{verdict}\t{number}\tuser={user}\n".encode())

        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
