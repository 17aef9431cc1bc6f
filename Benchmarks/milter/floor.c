/* SPDX-License-Identifier: Apache-2.0
 * The least that a milter can do which is handed all of a message: takes it on libmilter, and accepts it.
 *   floor unix:/path | inet:PORT@127.0.0.1
 */
#include <libmilter/mfapi.h>
#include <sysexits.h>

static sfsistat on_header(SMFICTX *context, char *name, char *value)
{
    (void) context, (void) name, (void) value;
    return SMFIS_CONTINUE;
}

static sfsistat on_step(SMFICTX *context)
{
    (void) context;
    return SMFIS_CONTINUE;
}

static sfsistat on_body(SMFICTX *context, unsigned char *bytes, size_t count)
{
    (void) context, (void) bytes, (void) count;
    return SMFIS_CONTINUE;
}

int main(int argc, char **argv)
{
    struct smfiDesc milter = {
        .xxfi_name = "floor", .xxfi_version = SMFI_VERSION, .xxfi_flags = SMFIF_CHGHDRS | SMFIF_CHGBODY,
        .xxfi_header = on_header, .xxfi_eoh = on_step, .xxfi_body = on_body, .xxfi_eom = on_step,
    };

    if (argc != 2)
        return EX_USAGE;
    if (smfi_setconn(argv[1]) == MI_FAILURE || smfi_register(milter) == MI_FAILURE)
        return EX_UNAVAILABLE;
    return smfi_main();
}
