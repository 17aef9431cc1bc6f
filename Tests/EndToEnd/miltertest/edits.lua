-- SPDX-License-Identifier: Apache-2.0
-- Run by miltertest(8): the edits of a message, for an MTA that sends every event and waits for every reply.
local connection = mt.connect(address)
if connection == nil then error("no connection to " .. address) end
-- The protocol steps come before the actions, despite what the manual says.
if mt.negotiate(connection, 6, 0, 0x1ff) ~= nil then error("negotiation") end
if mt.conninfo(connection, "client.example.org", "192.0.2.1") ~= nil then error("connect") end

for round = 1, 2 do
    mt.macro(connection, SMFIC_MAIL, "i", "4ABC" .. round)
    if mt.mailfrom(connection, "<a@example.org>") ~= nil then error("MAIL") end
    if mt.rcptto(connection, "<b@example.com>") ~= nil then error("RCPT") end
    mt.header(connection, "From", "a@example.org")
    mt.header(connection, "X-Gone", "1")
    mt.header(connection, "X-Old", "2")
    mt.header(connection, "X-Mark", "3")
    mt.header(connection, "Subject", "hold")
    mt.eoh(connection)
    mt.bodystring(connection, "keep\r\ndrop\r\nkeep\r\n")
    if mt.eom(connection) ~= nil then error("end of message") end
    if mt.getreply(connection) ~= SMFIR_CONTINUE then error("not accepted: " .. mt.getreply(connection)) end
    if not mt.eom_check(connection, MT_HDRDELETE, "x-gone") then error("X-Gone is not deleted") end
    if not mt.eom_check(connection, MT_HDRINSERT, "X-New") then error("X-New is not there") end
    if not mt.eom_check(connection, MT_HDRINSERT, "X-Above") then error("X-Above is not there") end
    if not mt.eom_check(connection, MT_BODYCHANGE, "keep\r\nkeep\r\n") then error("the body is not changed") end
    if not mt.eom_check(connection, MT_QUARANTINE) then error("not held") end
end
mt.disconnect(connection)
