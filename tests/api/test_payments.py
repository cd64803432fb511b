from tests.api.running import Api
async def test_smoke(api: Api) -> None:
    p = await api.create()
    print(p)
    print(await api.get(f"/api/pay/{p['id']}"))
    print(await api.get(f"/api/pay/{p['id']}", api.reader))
    print(await api.get("/api/pay?limit=1", api.reader))
    print(await api.get("/readyz"), await api.get("/livez"))
    print(await api.post(f"/api/pay/{p['id']}/cancel", api.writer))
    print(await api.post(f"/api/pay/{p['id']}/cancel", api.writer))
