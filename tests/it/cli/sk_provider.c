/* A security key in software, for the tests alone: the middleware that OpenSSH loads (SSH_SK_PROVIDER) to talk to a device.
 * An Ed25519 key whose handle is its seed; "touched" at once. The declarations are those of PROTOCOL.u2f's sk-api.h and of
 * libcrypto, so that no development packages are needed. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define API_VERSION 0x000a0000
#define ALGORITHM_ED25519 0x01
#define FLAG_USER_PRESENCE 0x01
#define ERROR_GENERAL -1
#define ERROR_UNSUPPORTED -2
#define EVP_PKEY_ED25519 1087

struct sk_enroll_response {
    uint8_t flags;
    uint8_t *public_key; size_t public_key_len;
    uint8_t *key_handle; size_t key_handle_len;
    uint8_t *signature; size_t signature_len;
    uint8_t *attestation_cert; size_t attestation_cert_len;
    uint8_t *authdata; size_t authdata_len;
};
struct sk_sign_response {
    uint8_t flags;
    uint32_t counter;
    uint8_t *sig_r; size_t sig_r_len;
    uint8_t *sig_s; size_t sig_s_len;
};
struct sk_option { char *name; char *value; uint8_t required; };

void *EVP_PKEY_new_raw_private_key(int type, void *engine, const uint8_t *key, size_t len);
int EVP_PKEY_get_raw_public_key(const void *key, uint8_t *out, size_t *len);
void EVP_PKEY_free(void *key);
void *EVP_MD_CTX_new(void);
void EVP_MD_CTX_free(void *ctx);
int EVP_DigestSignInit(void *ctx, void **key_ctx, const void *md, void *engine, void *key);
int EVP_DigestSign(void *ctx, uint8_t *sig, size_t *sig_len, const uint8_t *data, size_t len);
unsigned char *SHA256(const unsigned char *data, size_t len, unsigned char *out);
int RAND_bytes(unsigned char *out, int len);

static uint8_t *copy(const void *from, size_t len) {
    uint8_t *to = malloc(len);
    if (to) memcpy(to, from, len);
    return to;
}

uint32_t sk_api_version(void) { return API_VERSION; }

int sk_enroll(uint32_t alg, const uint8_t *challenge, size_t challenge_len, const char *application, uint8_t flags,
              const char *pin, struct sk_option **options, struct sk_enroll_response **out) {
    uint8_t seed[32], public[32];
    size_t len = sizeof public;
    (void)challenge; (void)challenge_len; (void)application; (void)pin; (void)options;
    if (alg != ALGORITHM_ED25519) return ERROR_UNSUPPORTED;
    if (RAND_bytes(seed, sizeof seed) != 1) return ERROR_GENERAL;
    void *key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, seed, sizeof seed);
    if (!key || EVP_PKEY_get_raw_public_key(key, public, &len) != 1) return ERROR_GENERAL;
    EVP_PKEY_free(key);
    struct sk_enroll_response *made = calloc(1, sizeof *made);
    if (!made) return ERROR_GENERAL;
    made->flags = flags;
    made->public_key = copy(public, made->public_key_len = sizeof public);
    made->key_handle = copy(seed, made->key_handle_len = sizeof seed);
    made->signature = copy(seed, made->signature_len = 1);
    *out = made;
    return 0;
}

int sk_sign(uint32_t alg, const uint8_t *data, size_t data_len, const char *application, const uint8_t *key_handle,
            size_t key_handle_len, uint8_t flags, const char *pin, struct sk_option **options,
            struct sk_sign_response **out) {
    /* What PROTOCOL.u2f has a device sign: hash of the application, flags, counter, hash of the data. */
    uint8_t signed_data[32 + 1 + 4 + 32], signature[64];
    size_t len = sizeof signature;
    (void)pin; (void)options;
    if (alg != ALGORITHM_ED25519 || key_handle_len != 32) return ERROR_UNSUPPORTED;
    SHA256((const uint8_t *)application, strlen(application), signed_data);
    signed_data[32] = flags | FLAG_USER_PRESENCE;
    memcpy(signed_data + 33, "\0\0\0\7", 4);
    SHA256(data, data_len, signed_data + 37);
    void *key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, key_handle, key_handle_len);
    void *ctx = EVP_MD_CTX_new();
    if (!key || !ctx || EVP_DigestSignInit(ctx, NULL, NULL, NULL, key) != 1 ||
        EVP_DigestSign(ctx, signature, &len, signed_data, sizeof signed_data) != 1)
        return ERROR_GENERAL;
    EVP_MD_CTX_free(ctx);
    EVP_PKEY_free(key);
    struct sk_sign_response *made = calloc(1, sizeof *made);
    if (!made) return ERROR_GENERAL;
    made->flags = signed_data[32];
    made->counter = 7;
    made->sig_r = copy(signature, made->sig_r_len = sizeof signature);
    *out = made;
    return 0;
}

int sk_load_resident_keys(const char *pin, struct sk_option **options, void ***keys, size_t *count) {
    (void)pin; (void)options; (void)keys; (void)count;
    return ERROR_UNSUPPORTED;
}
