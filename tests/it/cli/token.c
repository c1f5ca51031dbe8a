/* A PKCS#11 library before another one (HALLPASS_TEST_LIBRARY): it does what that one does, and what the file HALLPASS_TEST_TOKEN says.
 * "final": the token says that one more wrong PIN locks it. "flip": a bit of each signature is another. "zero": each is nothing but
 * zeros. Every login is put down in the file of that name and ".logins".
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned long ulong_t;
typedef void (*function_t)(void);

/* CK_FUNCTION_LIST of version 2.40: the version, then the functions in their order. */
enum { TOKEN_INFO = 6, LOGIN = 18, SIGN = 43, FUNCTIONS = 68 };
struct list { unsigned char version[2]; function_t functions[FUNCTIONS]; };

/* CK_TOKEN_INFO: the flags stand behind label, manufacturer, model and serial number. */
enum { FLAGS_AT = 32 + 32 + 16 + 16 };
static const ulong_t FINAL_TRY = 0x00020000;

static struct list ours, *theirs;

static int is_told(const char *word) {
    char text[64] = "";
    const char *path = getenv("HALLPASS_TEST_TOKEN");
    FILE *file = path ? fopen(path, "r") : NULL;
    if (file) {
        if (!fgets(text, sizeof text, file))
            text[0] = '\0';
        fclose(file);
    }
    return strcmp(text, word) == 0;
}

static ulong_t token_info(ulong_t slot, unsigned char *info) {
    ulong_t flags, answer = ((ulong_t (*)(ulong_t, unsigned char *))theirs->functions[TOKEN_INFO])(slot, info);
    if (answer == 0 && is_told("final")) {
        memcpy(&flags, info + FLAGS_AT, sizeof flags);
        flags |= FINAL_TRY;
        memcpy(info + FLAGS_AT, &flags, sizeof flags);
    }
    return answer;
}

static ulong_t login(ulong_t session, ulong_t user, unsigned char *pin, ulong_t length) {
    char path[4096];
    FILE *file;
    snprintf(path, sizeof path, "%s.logins", getenv("HALLPASS_TEST_TOKEN"));
    file = fopen(path, "a");
    if (file) {
        fputs("login\n", file);
        fclose(file);
    }
    return ((ulong_t (*)(ulong_t, ulong_t, unsigned char *, ulong_t))theirs->functions[LOGIN])(session, user, pin, length);
}

static ulong_t sign(ulong_t session, unsigned char *data, ulong_t length, unsigned char *signature, ulong_t *made) {
    ulong_t answer = ((ulong_t (*)(ulong_t, unsigned char *, ulong_t, unsigned char *, ulong_t *))theirs->functions[SIGN])(
        session, data, length, signature, made);
    if (answer != 0 || !signature)
        return answer;
    if (is_told("flip"))
        signature[*made / 2] ^= 4;
    if (is_told("zero"))
        memset(signature, 0, *made);
    return answer;
}

ulong_t C_GetFunctionList(struct list **list) {
    void *library = dlopen(getenv("HALLPASS_TEST_LIBRARY"), RTLD_NOW | RTLD_LOCAL);
    void *found = library ? dlsym(library, "C_GetFunctionList") : NULL;
    ulong_t (*get)(struct list **);
    if (!found)
        return 5; /* CKR_GENERAL_ERROR */
    memcpy(&get, &found, sizeof get);
    if (get(&theirs) != 0)
        return 5;
    ours = *theirs;
    ours.functions[TOKEN_INFO] = (function_t)token_info;
    ours.functions[LOGIN] = (function_t)login;
    ours.functions[SIGN] = (function_t)sign;
    *list = &ours;
    return 0;
}
