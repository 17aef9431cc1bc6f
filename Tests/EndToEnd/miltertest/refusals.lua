-- SPDX-License-Identifier: Apache-2.0
-- Run by miltertest(8): messages that are refused or given up in between, for an MTA that leaves out what is not needed, but
-- tells of the end of headers.
local connection = mt.connect(address)
if connection == nil then error("no connection to " .. address) end
-- Steps come before actions, whatever its manual says.
if mt.negotiate(connection, 6, 0x1ff080, 0x1ff) ~= nil then error("negotiation") end
mt.conninfo(connection, "client.example.org", "192.0.2.1")

-- Given up after each step.
for steps = 1, 4 do
    mt.mailfrom(connection, "<a@example.org>")
    if steps > 1 then mt.rcptto(connection, "<b@example.com>") end
    if steps > 2 then mt.header(connection, "Subject", "reject") end
    if steps > 3 then mt.bodystring(connection, "text\r\n") end
    mt.abort(connection)
end

mt.mailfrom(connection, "<a@example.org>")
mt.rcptto(connection, "<b@example.com>")
mt.header(connection, "Subject", "reject")
mt.eoh(connection)
mt.eom(connection)
if mt.getreply(connection) ~= SMFIR_REPLYCODE then error("not refused") end
if not mt.eom_check(connection, MT_SMTPREPLY, "550", "5.7.1", "no") then error("refused with another reply") end

mt.mailfrom(connection, "<a@example.org>")
mt.rcptto(connection, "<b@example.com>")
mt.header(connection, "Subject", "fine")
mt.eoh(connection)
mt.eom(connection)
if mt.getreply(connection) ~= SMFIR_CONTINUE then error("not taken") end
mt.disconnect(connection)
